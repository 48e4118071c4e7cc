"""What every measurement of this folder stands on: a probe of the machine's limits, runs of `shoal bench`, how much others use of the machine
meanwhile, and tables of results.

Machines are shared and their memory is faster in one minute than in the next: a figure is a ratio of two things measured in the same
minute, and of several turns (turns.py) the median counts. Deliberately not: what is measured (bars.py, parts.py, peers/).
"""
import csv
import json
import os
import statistics
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("SHOAL_BUILD") or os.path.join(ROOT, "build", "release")
SHOAL = os.path.join(BUILD, "shoal")
RESULTS = os.path.join(ROOT, "bench", "results")
FOREIGN_LIMIT = 0.1  # of a core
TICKS = os.sysconf("SC_CLK_TCK")


class Unable(Exception):
    """Why something cannot be measured here."""


# ---- who else computes -------------------------------------------------------------------------------------------------------------


def machine_ticks():
    """(busy, stolen by the host), all cores, of /proc/stat; zeros where there is none."""
    try:
        with open("/proc/stat") as f:
            user, nice, system, idle, wait, irq, soft, steal = map(int, f.readline().split()[1:9])
    except OSError:
        return 0, 0
    return user + nice + system + irq + soft, steal


def children_of(pid):
    """Of all its threads, and theirs."""
    direct = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                direct += map(int, f.read().split())
    except OSError:
        pass
    return direct + [c for d in direct for c in children_of(d)]


def process_seconds(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


class Watch:
    """Cores that others used between enter and exit: `foreign`. Ours: this process, its children that ended, and `pids`."""

    def __init__(self, pids=()):
        self.pids = pids

    def ours(self):
        t = os.times()
        return t.user + t.system + t.children_user + t.children_system + sum(map(process_seconds, self.pids))

    def __enter__(self):
        self.began, self.busy, self.before = time.monotonic(), machine_ticks(), self.ours()
        return self

    def __exit__(self, *_):
        seconds = time.monotonic() - self.began
        busy, steal = (b - a for a, b in zip(self.busy, machine_ticks()))
        self.foreign = max(0.0, busy / TICKS - (self.ours() - self.before) + steal / TICKS) / max(seconds, 0.01)


def calm(pids=(), within=0.0, look_s=1.0):
    """Waits until others use no more than they may for a second; False when that does not come about within so many seconds."""
    end = time.monotonic() + within
    while True:
        with Watch(pids) as watch:
            time.sleep(look_s)
        if watch.foreign <= FOREIGN_LIMIT:
            return True
        if time.monotonic() >= end:
            return False


def undisturbed(once, tries=3):
    """(what once() returns, cores that others used meanwhile), of the least disturbed of so many tries, fewer when one was not."""
    best = None
    for _ in range(tries):
        with Watch() as watch:
            result = once()
        if best is None or watch.foreign < best[1]:
            best = result, watch.foreign
        if watch.foreign <= FOREIGN_LIMIT:
            break
    return best


# ---- the machine's limits ----------------------------------------------------------------------------------------------------------


class Probe:
    """bench_membw --serve: of now, read bandwidth (GB/s), int8 and f32 peaks (10^9 operations/s), and the bandwidth by the clock of an onlooker."""

    def __init__(self, mib):
        self.process = subprocess.Popen([program("bench_membw"), "--serve", "--mib", str(mib), "--reps", "3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise Unable(f"bench_membw has no {mib} MiB twice")

    def ask(self, threads):
        self.process.stdin.write(f"{threads}\n")
        self.process.stdin.flush()
        return dict(zip(("read", "int8", "f32", "onlooker"), map(float, self.process.stdout.readline().split())))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def between(probe, threads, once):
    """once() between two probes -> (its result, what Probe.ask says)"""
    before = probe.ask(threads)
    result = once()
    after = probe.ask(threads)
    return result, {name: (before[name] + after[name]) / 2 for name in before}


def median(values):
    return statistics.median(values)


def spread(values):
    return f"{min(values):.3f}–{max(values):.3f}"


# ---- running programs ---------------------------------------------------------------------------------------------------------------


def program(name):
    path = os.path.join(BUILD, name)
    if not os.path.exists(path):
        raise Unable(f"there is no {path}")
    return path


def output_of(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode:
        raise Unable(f"{os.path.basename(command[0])} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def shoal_bench_start(model, threads, *options, core=None):
    command = [SHOAL, "bench", model, "--json", "--threads", str(threads), *map(str, options)]
    if core is not None:
        command = ["taskset", "-c", str(core)] + command
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shoal_bench_end(process):
    try:
        out, said = process.communicate()
    finally:
        process.kill()  # it has ended, unless we are being ended
    if process.returncode:
        raise Unable(f"shoal bench failed: {said.strip()}")
    return {name: value for line in out.splitlines() for name, value in json.loads(line).items()}


def shoal_bench(model, threads, *options, core=None):
    return shoal_bench_end(shoal_bench_start(model, threads, *options, core=core))


# ---- results -----------------------------------------------------------------------------------------------------------------------


def figure(v):
    """Four digits, or all before the point."""
    return f"{v:.0f}" if abs(v) >= 1000 else f"{v:.4g}"


class Table:
    """Rows of bench/results/NAME.csv, replaced by key: a run of some measurements leaves the others as they are."""

    def __init__(self, name, columns, n_key):
        self.path, self.columns, self.n_key = os.path.join(RESULTS, name + ".csv"), columns, n_key
        self.rows = {}
        if os.path.exists(self.path):
            with open(self.path, newline="") as f:
                for row in csv.DictReader(f):
                    row = [row.get(name) or "" for name in columns]
                    self.rows[tuple(row[:n_key])] = row

    def put(self, *values):
        row = [figure(v) if isinstance(v, float) else str(v) for v in values]
        self.rows[tuple(row[: self.n_key])] = row

    def only(self, first, seconds):
        """Of the rows whose key begins with `first` those are left whose key goes on with one of `seconds`."""
        self.rows = {k: row for k, row in self.rows.items() if k[0] != first or k[1] in seconds}

    def save(self):
        with open(self.path, "w", newline="") as f:
            out = csv.writer(f, lineterminator="\n")
            out.writerow(self.columns)
            out.writerows(self.rows[k] for k in sorted(self.rows))
