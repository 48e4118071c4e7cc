"""What every measurement of this folder stands on: turns of a probe of the machine and of what is measured, runs of `shoal bench`, how much
others use of the machine meanwhile, and tables of results.

Machines are shared and their memory is faster in one minute than in the next: a figure is a ratio of two things measured in the same
minute, and of several turns the median counts. A turn during which somebody else used more than a tenth of a core is taken again, at most
as many as were asked for; how many is said. Deliberately not: what is measured (bars.py, peers/).
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


# ---- the machine's limits ----------------------------------------------------------------------------------------------------------


class Probe:
    """bench_membw --serve: read bandwidth (GB/s), int8 and f32 peaks (10^9 operations/s) of now."""

    def __init__(self, mib):
        command = [os.path.join(BUILD, "bench_membw"), "--serve", "--mib", str(mib), "--reps", "3"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def ask(self, threads):
        self.process.stdin.write(f"{threads}\n")
        self.process.stdin.flush()
        return tuple(map(float, self.process.stdout.readline().split()))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Turns:
    """Takes turns until `reps` are undisturbed; counts those that were not."""

    def __init__(self, reps, pids=()):
        """pids: processes beside our children that are part of what is measured."""
        self.reps, self.pids, self.disturbed = reps, pids, 0

    def take(self, once):
        """once() -> anything; the list of them."""
        results = []
        for spare in range(2 * self.reps - 1, -1, -1):
            with Watch(self.pids) as watch:
                result = once()
            if watch.foreign > FOREIGN_LIMIT and spare > self.reps - len(results):
                self.disturbed += 1
                continue
            results.append(result)
            if len(results) == self.reps:
                break
        return results

    def note(self):
        return f"{self.disturbed} disturbed turns taken again" if self.disturbed else ""


def between(probe, threads, once):
    """once() between two probes -> (its result, (read, int8, f32))"""
    before = probe.ask(threads)
    result = once()
    return result, tuple((a + b) / 2 for a, b in zip(before, probe.ask(threads)))


def median(values):
    return statistics.median(values)


# ---- running shoal -----------------------------------------------------------------------------------------------------------------


def shoal_bench_start(model, threads, *options, core=None):
    command = [SHOAL, "bench", model, "--json", "--threads", str(threads), *map(str, options)]
    if core is not None:
        command = ["taskset", "-c", str(core)] + command
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shoal_bench_end(process):
    out, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"shoal bench failed: {said.strip()}")
    return json.loads(out)


def shoal_bench(model, threads, *options, core=None):
    return shoal_bench_end(shoal_bench_start(model, threads, *options, core=core))


# ---- results -----------------------------------------------------------------------------------------------------------------------


class Table:
    """Rows of bench/results/NAME.csv, replaced by key: a run of some measurements leaves the others as they are."""

    def __init__(self, name, columns, n_key):
        self.path, self.columns, self.n_key = os.path.join(RESULTS, name + ".csv"), columns, n_key
        self.rows = {}
        if os.path.exists(self.path):
            with open(self.path, newline="") as f:
                for row in list(csv.reader(f))[1:]:
                    if len(row) == len(columns):
                        self.rows[tuple(row[:n_key])] = row

    def put(self, *values):
        row = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in values]
        self.rows[tuple(row[: self.n_key])] = row

    def save(self):
        with open(self.path, "w", newline="") as f:
            out = csv.writer(f, lineterminator="\n")
            out.writerow(self.columns)
            out.writerows(self.rows[k] for k in sorted(self.rows))
