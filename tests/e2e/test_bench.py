#!/usr/bin/env python3
"""The driver of `make bench` (bench/turns.py, bars.py, parts.py) over measurements that are made up: which turns count, what is kept, that a run which is cut
off goes on, that one bar's fault is not the others', what is read of the programs' words. No speed is measured. Lines `ok NAME` or `not ok NAME: why`."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from xml.etree import ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "bench"), os.path.join(ROOT, "bench", "peers"), os.path.join(ROOT, "tools")]
sys.dont_write_bytecode = True
import bars  # noqa: E402  pylint: disable=wrong-import-position
import measuring  # noqa: E402  pylint: disable=wrong-import-position
import parts  # noqa: E402  pylint: disable=wrong-import-position
import peers  # noqa: E402  pylint: disable=wrong-import-position
import plot  # noqa: E402  pylint: disable=wrong-import-position
import turns  # noqa: E402  pylint: disable=wrong-import-position

failed = []


def turn(result, foreign=0.0, seconds=1.0):
    return {"result": result, "foreign": foreign, "seconds": seconds}


class Clock:
    """Seconds pass when they are told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Watch:
    """As measuring.Watch, saying what a test wants said: cores that others used, turn by turn."""

    script = []

    def __init__(self, pids=()):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.foreign = Watch.script.pop(0) if Watch.script else 0.0


class Rig:
    """A driver over a folder that goes away."""

    def __init__(self, build="one", seconds=None):
        self.folder, self.clock, self.said, self.build = tempfile.TemporaryDirectory(), Clock(), [], build
        self.table = measuring.Table("none", bars.COLUMNS, 2)
        self.table.path = os.path.join(self.folder.name, "table.csv")
        self.begin(seconds)

    def begin(self, seconds=None, build=None):
        checkpoint = turns.Checkpoint(os.path.join(self.folder.name, "turns.json"), build or self.build, "c0ffee")
        self.driver = turns.Driver(checkpoint, seconds, table=self.table, clock=self.clock, say=self.said.append)
        return self.driver

    def unit(self, name, values, reps=3, takes=10.0, needed=1.0, **more):
        """Takes `values` one after the other; an exception among them is raised."""
        left = iter(values)

        def once(_):
            self.clock.now += takes
            value = next(left)
            if isinstance(value, Exception):
                raise value
            return value

        def rows(results):
            return [turns.Row(name, measuring.median(results), needed)]

        return turns.Unit("made-up", name, once, rows, reps, guess_s=takes, **more)


def values_of(rig, unit):
    return [row.value for row in rig.driver.rows(unit)]


# ---- which turns count ------------------------------------------------------------------------------------------------------


def test_turns_chosen():
    few = [turn(1), turn(2, 0.5), turn(3, 0.2), turn(4, 0.05)]
    assert turns.wants_turn(few, 3) and not turns.wants_turn(few, 2)
    assert [t["result"] for t in turns.chosen(few, 2)] == [1, 4]
    assert [t["result"] for t in turns.chosen(few, 3)] == [1, 3, 4], "the least disturbed one fills up, in the order taken"
    assert turns.disturbance(few, 3) == (1, 1)
    many = [turn(i, 1.0) for i in range(6)]
    assert not turns.wants_turn(many, 3), "twice as many as asked for and no more"
    assert turns.disturbance_note(many, 3) == "3 disturbed turns taken again; 3 of 3 turns disturbed"
    assert turns.disturbance_note([turn(1)], 1) == ""


def test_undisturbed_are_alike():
    """What was measured, or how little below the limit others used, does not choose."""
    calm = [turn(9, 0.09), turn(1, 0.0), turn(5, 0.05), turn(7, 0.0)]
    assert [t["result"] for t in turns.chosen(calm, 3)] == [9, 1, 5]


def test_disturbed_turns_are_taken_again():
    rig = Rig()
    Watch.script = [0.0, 0.9, 0.0, 0.3, 0.0]
    unit = rig.unit("a", [1.0, 100.0, 2.0, 100.0, 3.0])
    rig.driver.run([unit], False)
    assert values_of(rig, unit) == [2.0] and not Watch.script
    assert rig.driver.rows(unit)[0].note == "2 disturbed turns taken again"


def test_units_that_watch_themselves():
    rig = Rig()
    unit = rig.unit("a", [(1.0, 0.0), (50.0, 0.5), (2.0, 0.0), (3.0, 0.0)], watches=True)
    Watch.script = [0.9] * 4
    rig.driver.run([unit], False)
    assert values_of(rig, unit) == [2.0]


def test_undisturbed():
    kept, measuring.Watch = measuring.Watch, Watch
    try:
        tries = iter("abcdef")
        Watch.script = [0.5, 0.05, 0.0]
        assert measuring.undisturbed(lambda: next(tries)) == ("b", 0.05), "the first that is not disturbed"
        Watch.script = [0.5, 0.3, 0.4]
        assert measuring.undisturbed(lambda: next(tries)) == ("d", 0.3), "else the least disturbed of three"
    finally:
        measuring.Watch = kept


def test_holds():
    assert turns.Row("a", 0.85, 0.85).holds() and not turns.Row("a", 0.849, 0.85).holds()
    assert turns.Row("a", 8.0, 8, at_most=True).holds() and not turns.Row("a", 8.1, 8, at_most=True).holds()
    assert turns.Row("a", 1.0).holds() is None and turns.Row("a", 1.0).needs() == ""


# ---- what is kept -----------------------------------------------------------------------------------------------------------


def test_resume():
    rig = Rig(seconds=35)
    units = [rig.unit("a", [1.0, 2.0, 3.0]), rig.unit("b", [4.0, 5.0, 6.0])]
    rig.driver.run(units, False)
    assert rig.clock.now == 30, "a fourth turn would have ended too late"
    assert values_of(rig, units[0]) == [2.0] and not rig.driver.finished(units[1])
    assert "not finished" in "\n".join(turns.summary(rig.driver, units))
    units = [rig.unit("a", []), rig.unit("b", [4.0, 5.0, 6.0])]  # a turn of the finished one would raise StopIteration
    rig.begin().run(units, True)
    assert rig.clock.now == 60 and values_of(rig, units[0]) == [2.0] and values_of(rig, units[1]) == [5.0]


def test_resume_inside_a_unit():
    rig = Rig(seconds=15)
    rig.driver.run([rig.unit("a", [1.0, 2.0, 3.0])], False)
    assert rig.clock.now == 10
    unit = rig.unit("a", [2.0, 3.0])
    rig.begin().run([unit], True)
    assert values_of(rig, unit) == [2.0] and rig.clock.now == 30


def test_one_turn_at_least():
    rig = Rig(seconds=5)
    rig.driver.run([rig.unit("a", [1.0])], False)
    assert rig.clock.now == 10, "else a limit below a turn's time would never get on"


def test_patience():
    rig, quiet = Rig(), iter([True, True, False])
    rig.driver.calm = lambda pids: next(quiet)
    rig.driver.run([rig.unit("a", [1.0, 2.0]), rig.unit("b", [])], False)
    assert rig.clock.now == 20 and rig.said == ["others are at work; --resume goes on"]
    kept, measuring.Watch = measuring.Watch, Watch
    try:
        Watch.script = [0.5, 0.4, 0.02]
        assert measuring.calm(within=60, look_s=0) and not Watch.script
        Watch.script = [0.5, 0.0]
        assert not measuring.calm(within=0, look_s=0)
    finally:
        measuring.Watch = kept


def test_fresh_run_forgets():
    rig = Rig()
    kept = rig.unit("kept", [7.0] * 3)
    rig.driver.run([rig.unit("a", [1.0] * 3), kept], False)
    unit = rig.unit("a", [2.0] * 3)
    rig.begin().run([unit], False)
    assert values_of(rig, unit) == [2.0] and values_of(rig, kept) == [7.0], "only what is measured anew is forgotten"


def test_other_build():
    rig = Rig()
    rig.driver.run([rig.unit("a", [1.0] * 3)], False)
    driver, unit = rig.begin(build="two"), rig.unit("a", [2.0] * 3)
    assert driver.checkpoint.stale
    driver.run([unit], True)
    assert values_of(rig, unit) == [2.0]
    assert not rig.begin(build="two").checkpoint.stale


def test_broken_checkpoint():
    rig = Rig()
    with open(rig.driver.checkpoint.path, "w") as f:
        f.write('{"build": "one", ')
    unit = rig.unit("a", [1.0] * 3)
    rig.begin().run([unit], True)
    assert values_of(rig, unit) == [1.0]


def test_build_hash():
    with tempfile.TemporaryDirectory() as folder:
        def put(name, text, mode=0o755):
            with open(os.path.join(folder, name), "w") as f:
                f.write(text)
            os.chmod(os.path.join(folder, name), mode)
            return turns.build_hash(folder)

        first = put("shoal", "a")
        assert put("notes", "x") == first and put("bench-turns.json", "{}", 0o644) == first
        second = put("bench_membw", "p")
        assert second != first and put("shoal", "b") not in (first, second)


# ---- faults -----------------------------------------------------------------------------------------------------------------


def test_faults_are_said():
    rig = Rig()
    units = [rig.unit("a", [measuring.Unable("no such program")]), rig.unit("b", [1.0, ZeroDivisionError("division")]), rig.unit("c", [3.0] * 3)]
    rig.driver.run(units, False)
    said = "\n".join(turns.summary(rig.driver, units))
    assert "a: cannot be measured: no such program" in said and "b: cannot be measured: ZeroDivisionError: division" in said
    assert values_of(rig, units[2]) == [3.0]
    assert "1 bars hold, 0 are missed, 2 measurements without a result" in said
    again = rig.unit("b", [1.0, 2.0])  # what was taken before the fault is kept
    rig.begin().run([again], True)
    assert values_of(rig, again) == [1.0] and "cannot" not in "\n".join(turns.summary(rig.driver, [again]))


def test_company_is_closed():
    closed = []

    class Company:
        pids = ()

        def close(self):
            closed.append(True)

    rig = Rig()
    units = [rig.unit("a", [1.0] * 3, company=Company), rig.unit("b", [measuring.Unable("gone")], company=Company)]
    rig.driver.run(units, False)
    assert len(closed) == 2
    rig.begin().run(units, True)
    assert len(closed) == 3, "none is made where nothing is measured"


class Program:
    """A program in shoal's place, that says its process id in a file; afterwards it must be gone."""

    def __init__(self, body):
        self.folder, self.before = tempfile.TemporaryDirectory(), bars.SHOAL
        self.pid_path = os.path.join(self.folder.name, "pid")
        bars.SHOAL = os.path.join(self.folder.name, "shoal")
        with open(bars.SHOAL, "w") as f:
            f.write(f"#!{sys.executable}\nimport os, time\nopen({self.pid_path!r}, 'w').write(str(os.getpid()))\n{body}")
        os.chmod(bars.SHOAL, 0o755)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        bars.SHOAL = self.before
        with open(self.pid_path) as f:
            pid = int(f.read())
        self.folder.cleanup()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        raise AssertionError(f"process {pid} was left behind")


SERVES_NOTHING = """
import http.server
class Refuses(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(503)
server = http.server.HTTPServer(('127.0.0.1', 0), Refuses)
print(f'ready at http://127.0.0.1:{server.server_port}', flush=True)
server.serve_forever()
"""


def test_server_that_fails_is_ended():
    with Program(SERVES_NOTHING):
        try:
            bars.Server("model")
        except ValueError:
            return
        raise AssertionError("it has no models and was taken")


def test_load_that_is_ended_leaves_nothing():
    def ring(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    with Program("time.sleep(60)\n"):
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        try:
            bars.load_once("model")
        except TimeoutError:
            pass
        finally:
            signal.signal(signal.SIGALRM, before)
        assert threading.active_count() == 1, "the watcher still runs"


def test_summary_counts():
    rig = Rig()
    units = [rig.unit("a", [1.0] * 3), rig.unit("b", [0.5] * 3), rig.unit("c", [0.5] * 3, needed=None)]
    rig.driver.run(units, False)
    lines = turns.summary(rig.driver, units)
    assert "holds" in lines[0] and "MISSED" in lines[1] and "holds" not in lines[2] and "MISSED" not in lines[2]
    assert lines[-1] == "1 bars hold, 1 are missed, 0 measurements without a result; build of c0ffee"


# ---- tables -----------------------------------------------------------------------------------------------------------------


def test_table():
    rig = Rig()
    rig.table.put("made-up", "gone", 1.0, "", "", "", "", "", "")
    rig.table.put("other", "stays", 12345.6, "", "", "", "", "", "")
    units = [rig.unit("a", [1.0] * 3), rig.unit("b", [measuring.Unable("x")])]
    rig.driver.run(units, False)
    rig.driver.clean_table(units)
    assert ("made-up", "gone") in rig.table.rows, "not all of the bar was measured"
    rig.begin().run([rig.unit("b", [0.5] * 3)], True)
    rig.driver.clean_table(units)
    with open(rig.table.path, encoding="utf-8") as f:
        said = f.read().splitlines()
    assert said[1:] == ["made-up,a,1,≥ 1,yes,,,,c0ffee", "made-up,b,0.5,≥ 1,no,,,,c0ffee", "other,stays,12346,,,,,,"]


def test_docs():
    rig = Rig()
    unit = rig.unit("a", [0.5] * 3)
    rig.driver.run([unit], False)
    path = os.path.join(rig.folder.name, "results.md")
    with open(path, "w", encoding="utf-8") as f:
        f.write("before\n<!-- bars -->\nold\n<!-- end of bars -->\nbehind\n")
    bars.write_docs([unit], rig.driver, path)
    with open(path, encoding="utf-8") as f:
        said = f.read()
    assert said.startswith("before\n<!-- bars -->\n| bar |") and said.endswith("<!-- end of bars -->\nbehind\n")
    assert "| made-up | a | 0.5 | ≥ 1 | **no** |  |\n" in said and "\nold\n" not in said


# ---- what programs say ------------------------------------------------------------------------------------------------------


def test_reads_probes():
    ours = "read bandwidth, 1 threads: 17.50 GB/s (prefetch, 4 streams, huge pages)\nint8 vpdpbusd, 64 bytes, 1 threads: 757.3 GOP/s\n"
    assert parts.best_read(ours, parts.OURS) == {1: 17.5}
    theirs = "read 4k    threads 2  median    33.53  best  34.51  worst 31.52 GB/s\nread thp +prefetch  threads 2  median  34.57  best 37.64\nint8 x  threads 2  median  1507.1\n"
    assert parts.best_read(theirs, parts.THEIRS) == {2: 34.57}


def test_reads_links():
    said = (
        "shm, 2 ranks, 4096 values, int48 (24 KiB each way)   best tenth      8.3 us, median      8.6, p99     12.6  (81)\n"
        "shm, 2 ranks, 4096 values, f64 (32 KiB each way)     best tenth      4.7 us, median      4.8, p99      8.5  (265)\n"
        "shm, 2 ranks, 4096 values, blocks (16 KiB each way)  best tenth      3.9 us, median      4.1, p99      7.5  (265)\n"
        "a sum over tls / the bare exchange, best tenths: 0.98 int48, 1.24 f64\n"
        "bulk over tls, 1 stream: 0.50 GB/s, 2.01 GB/s per core used: 0.40 of AES (4.98), 0.85 of AES and bare TCP one after the other\n"
        "bulk over tls, 4 streams: 0.59 GB/s, 2.02 GB/s per core used: 0.41 of AES (4.98), 0.85 of AES and bare TCP one after the other\n"
    )
    assert parts.sums_over_shm(said) == {"f64": [4.7, 4.8], "blocks": [3.9, 4.1], "int48": [8.3, 8.6]}
    assert parts.sums_over_tls(said) == {"int48": 0.98, "f64": 1.24}
    assert parts.bulk(said) == {"1": [0.40, 0.85], "4": [0.41, 0.85]}


def test_reads_plans():
    said = "llama-3.1-8b:q4_k_m       16 nodes  speed          9.60 ms    6358 structures  best: 1 nodes\ndeepseek-v3:4bit          16 nodes  ttft          36.10 ms  does not fit\n"
    assert parts.slowest_plans(said) == {"16": 36.1}


def test_decode_share():
    results = [{"rate": 40.0, "bytes": 700e6, "read": 32.0, "onlooker": 35.0}] * 3
    row = bars.decode_share(results, 0.85, "x")
    assert abs(row.value - 0.875) < 1e-9 and row.holds() and "0.80 by an onlooker's clock" in row.note


# ---- drawings ---------------------------------------------------------------------------------------------------------------


class Page:
    """What plot.Drawing.text would draw: (left, right, base, words)."""

    def __init__(self):
        self.texts = []

    def text(self, x, y, words, *_):
        self.texts.append((x, x + 6.1 * len(words), y, words))


def test_labels_keep_apart():
    dots = [(100 + 7 * (i % 5), 100 + 9 * (i // 5), f"label {i}", "green") for i in range(20)]
    page = Page()
    plot.put_labels(page, dots, (0, 0, 400, 300), [])
    assert 5 <= len(page.texts) <= len(dots)
    for i, a in enumerate(page.texts):
        assert a[0] >= 0 and a[1] <= 400
        for b in page.texts[:i]:
            assert a[1] <= b[0] or b[1] <= a[0] or abs(a[2] - b[2]) >= 11, f"{a[3]} is on {b[3]}"


def test_dots_on_one_another_share_a_label():
    dots = [(10, 10, "a", "green"), (12, 11, "b", "green"), (12, 11, "c", "red"), (60, 10, "d", "green")]
    assert [d[2] for d in plot.joined(dots)] == ["a, b", "c", "d"]


def test_drawings():
    """Both are made of tables, the same for the same; a bar not measured is no dot and no fault."""
    row = {"limit": "", "rate": "", "value": "0.9"}
    own = [row | {"bar": "decode", "what": "Q4_0, 2 threads, of the bandwidth", "rate": "40", "limit": "33"},
           row | {"bar": "prompt", "what": "Q4_0, 2 threads, of the int8 peak", "rate": "340", "limit": "1480"},
           row | {"bar": "shared", "what": plot.RANKS_BESIDE, "rate": "20", "limit": "40"},
           row | {"bar": "http", "what": "streamed"}]
    peer = {"peer": "llama.cpp", "type": "Q4_0", "threads": "2", "shoal_tok_s": "40", "peer_tok_s": "17"}
    theirs = [peer | {"part": part, "what": what} for part in ("decode", "prompt") for what in ("alone", "busy")]
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("a.svg", "b.svg", "none.svg")]
        plot.roofline(paths[0], own, theirs)
        plot.shared(paths[1], own, theirs)
        plot.roofline(paths[2], own[2:], theirs)
        plot.shared(paths[2], own, theirs[:1])
        assert not os.path.exists(paths[2])
        said = [ElementTree.parse(path).getroot().itertext() for path in paths[:2]]
    roof, load = ("\n".join(s) for s in said)
    assert "Q4_0 90 %" in roof and "memory 33 GB/s" in roof and "int8 peak 1480" in roof and "f32" not in roof
    assert "20.0 beside a busy program: 50 %" in load and "in two ranks" in load and "llama.cpp" in load


def test_all_units():
    """Names are keys: no two the same, and every bar of the manual is there."""
    options = type("options", (), {"types": ["Q4_0", "Q8_0", "Q4_K_M", "F16", "BF16"], "reps": 5})
    units = bars.units_of(bars.Machine(options))
    keys = [u.key() for u in units]
    assert len(set(keys)) == len(keys)
    assert {"decode", "prompt", "context", "batch", "shared", "one-core", "load", "fixed", "http", "drafts", "sample"} <= {u.bar for u in units}
    assert {"membw", "ranks", "links", "planner", "predict", "text", "peers"} <= {u.bar for u in units}
    json.dumps(keys)


def test_a_wrong_folder_of_a_peer_is_named():
    os.environ["NLC_DIR"] = "/no/such/folder"
    try:
        peers.npm_folder()
        assert False, "a folder that is not there was taken"
    except measuring.Unable as why:
        assert "/no/such/folder" in str(why)
    finally:
        del os.environ["NLC_DIR"]


def test_wrong_calls_measure_nothing():
    """They end with a word, and never as if all were measured."""
    program, nowhere = [sys.executable, os.path.join(ROOT, "bench", "bars.py")], os.path.join(ROOT, "no-such-build")
    for options, words in ((["--only", "decode,speed"], "no bar 'speed'; there are decode,"), (["--types", "Q9_9"], "no type 'Q9_9'; there are F16,"),
                           (["--reps", "0"], "--reps 0"), (["--only", "decode"], "tools/build release --bench"), (["--summary"], "there is no " + nowhere)):
        done = subprocess.run(program + options, env={**os.environ, "SHOAL_BUILD": nowhere}, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr and not done.stdout, (options, done.stdout, done.stderr)


def main():
    turns.Watch = Watch
    for name, test in sorted(globals().items()):
        if not name.startswith("test_"):
            continue
        Watch.script = []
        try:
            test()
            print(f"ok {name}")
        except Exception as error:  # pylint: disable=broad-exception-caught
            failed.append(name)
            print(f"not ok {name}: {type(error).__name__}: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
