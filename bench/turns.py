"""Runs measurements in turns and keeps every turn, so that a run that is cut off goes on where it was: what bars.py and peers/peers.py share.

A Unit is one measurement: `once` takes one turn and returns plain data, `rows` makes results of all turns. Turns are taken until `reps` of them
are undisturbed (nobody else used more than a tenth of a core meanwhile), at most twice as many as asked for; when that does not do, the least
disturbed ones count, and the row says so. Every turn is written at once into a checkpoint beside the build, under the hash of its programs: turns
of another build are never mixed with these. A unit that cannot be measured says why, and the next one is taken. With a limit of seconds no turn is
begun that would not end in time, by how long earlier ones took; with `patience` each is put off while others are at work, and the run ends when they go on
for longer than that. Deliberately not: what is measured.
"""
import dataclasses
import hashlib
import json
import os
import subprocess
import time

import measuring
from measuring import Unable, Watch

GUESS_S = 15  # a turn of which nothing is known yet


@dataclasses.dataclass
class Row:
    """A bar and what was reached; needed None: there is no bar, it is only said. rate, limit: what a share is made of, for drawings."""

    what: str
    value: float
    needed: float = None
    at_most: bool = False
    note: str = ""
    rate: float = None
    limit: float = None

    def holds(self):
        if self.needed is None:
            return None
        return self.value <= self.needed if self.at_most else self.value >= self.needed

    def needs(self):
        return "" if self.needed is None else f"{'≤' if self.at_most else '≥'} {self.needed:g}"


@dataclasses.dataclass
class Unit:
    bar: str
    name: str
    once: callable  # (what `company` made, or None) -> data for JSON
    rows: callable  # (list of them) -> list of Row
    reps: int = 5
    company: callable = None  # -> something with `pids` and close(), that lives as long as the turns
    watches: bool = False  # once returns (data, cores that others used) and takes again itself what was disturbed
    keep: callable = None  # (list of them, how many disturbed) -> None: other tables
    guess_s: float = GUESS_S

    def key(self):
        return f"{self.bar}: {self.name}"


# ---- which turns count --------------------------------------------------------------------------------------------------------------


def undisturbed(turns):
    return [t for t in turns if t["foreign"] <= measuring.FOREIGN_LIMIT]


def wants_turn(turns, reps):
    return len(undisturbed(turns)) < reps and len(turns) < 2 * reps


def chosen(turns, reps):
    """`reps` of the turns, in the order they were taken: the least disturbed, all undisturbed ones being alike (then the first)."""
    order = sorted(range(len(turns)), key=lambda i: (max(turns[i]["foreign"], measuring.FOREIGN_LIMIT), i))[:reps]
    return [turns[i] for i in sorted(order)]


def disturbance(turns, reps):
    """(how many were left out, how many of those that count were disturbed)"""
    counted = chosen(turns, reps)
    return len(turns) - len(counted), len(counted) - len(undisturbed(counted))


def disturbance_note(turns, reps):
    out, inside = disturbance(turns, reps)
    said = [f"{out} disturbed turns taken again"] if out else []
    return "; ".join(said + ([f"{inside} of {reps} turns disturbed"] if inside else []))


def of_threads(n):
    return f"{n} thread" if n == 1 else f"{n} threads"


def expected_s(unit, turns):
    return max((t["seconds"] for t in turns), default=unit.guess_s)


# ---- what is kept -------------------------------------------------------------------------------------------------------------------


def build_hash(folder):
    """Of the programs that are measured and of those that measure."""
    h = hashlib.sha256()
    for name in sorted(n for n in os.listdir(folder) if n == "shoal" or n.startswith("bench_")):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            with open(path, "rb") as f:
                h.update(name.encode() + b"\0" + hashlib.sha256(f.read()).digest())
    return h.hexdigest()[:16]


def commit_name():
    said = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=9"], cwd=measuring.ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


class Checkpoint:
    """Turns by unit, in one JSON file. A file of another build counts as none; `stale` says so."""

    def __init__(self, path, build, commit):
        self.path, self.stale = path, False
        self.data = {"build": build, "commit": commit, "units": {}}
        try:
            with open(path) as f:
                kept = json.load(f)
            if kept["build"] == build:
                self.data = kept
            else:
                self.stale = True
        except (OSError, ValueError, KeyError):
            pass

    def commit(self):
        return self.data["commit"]

    def unit(self, key):
        return self.data["units"].setdefault(key, {"turns": [], "rows": None, "failed": ""})

    def forget(self, key):
        self.data["units"].pop(key, None)

    def save(self):
        with open(self.path + ".part", "w") as f:
            json.dump(self.data, f, indent=1)
        os.replace(self.path + ".part", self.path)


# ---- the run ------------------------------------------------------------------------------------------------------------------------


class TimeIsUp(Exception):
    """No turn may begin any more, and why."""


class Driver:
    def __init__(self, checkpoint, seconds=None, pids=lambda: (), table=None, clock=time.monotonic, say=print, calm=None):
        """pids: of helpers beside our children, that are no strangers. table: measuring.Table for the rows, or None. calm: (pids) -> whether others are quiet,
        after some waiting; None: no turn is put off."""
        self.checkpoint, self.seconds, self.pids, self.table, self.clock, self.say, self.calm = checkpoint, seconds, pids, table, clock, say, calm
        self.began, self.taken = clock(), 0

    def run(self, units, resume):
        """Measures all units as far as time goes; those finished before are kept with `resume`."""
        if not resume:
            for unit in units:
                self.checkpoint.forget(unit.key())
        try:
            for unit in units:
                self.measure(unit)
        except TimeIsUp as why:
            self.say(f"{why}; --resume goes on")

    def may_begin(self, seconds):
        left = float("inf") if self.seconds is None else self.seconds - (self.clock() - self.began)
        return left >= seconds or (self.taken == 0 and left > 0)  # one at least, so that every run gets on

    def measure(self, unit):
        kept = self.checkpoint.unit(unit.key())
        if kept["rows"] is not None and not wants_turn(kept["turns"], unit.reps):
            return
        kept["failed"] = ""
        company = None
        try:
            while wants_turn(kept["turns"], unit.reps):
                if not self.may_begin(expected_s(unit, kept["turns"])):
                    raise TimeIsUp("time is up")
                if unit.company and not company:
                    company = unit.company()
                if self.calm and not self.calm(self.helpers(company)):
                    raise TimeIsUp("others are at work")
                self.turn(unit, kept["turns"], company)
            self.finish(unit, kept)
        except TimeIsUp:
            raise
        except Exception as why:  # whatever it is, the other bars are measured
            kept["failed"] = str(why) if isinstance(why, Unable) else f"{type(why).__name__}: {why}"
            self.say(f"{unit.bar:<9} {unit.name}: cannot be measured: {kept['failed']}")
        finally:
            if company:
                company.close()
            self.checkpoint.save()

    def helpers(self, company):
        return [*self.pids(), *(company.pids if company else ())]

    def turn(self, unit, turns, company):
        began = self.clock()
        with Watch(self.helpers(company)) as watch:
            result = unit.once(company)
        result, foreign = result if unit.watches else (result, watch.foreign)
        result = json.loads(json.dumps(result))  # as a later run will find it
        turns.append({"result": result, "foreign": round(foreign, 3), "seconds": round(self.clock() - began, 2)})
        self.taken += 1
        self.checkpoint.save()

    def finish(self, unit, kept):
        results = [t["result"] for t in chosen(kept["turns"], unit.reps)]
        rows = unit.rows(results)
        if unit.keep:
            unit.keep(results, disturbance(kept["turns"], unit.reps)[1])
        disturbed = disturbance_note(kept["turns"], unit.reps)
        for row in rows:
            row.note = ", ".join(filter(None, (row.note, disturbed)))
            self.say(line_of(unit.bar, row))
            self.to_table(unit.bar, row)
        kept["rows"] = [dataclasses.asdict(row) for row in rows]

    def to_table(self, bar, row):
        if self.table:
            verdict = {True: "yes", False: "no", None: ""}[row.holds()]
            rate, limit = ("" if v is None else float(v) for v in (row.rate, row.limit))
            self.table.put(bar, row.what, float(row.value), row.needs(), verdict, rate, limit, row.note, self.checkpoint.commit())
            self.table.save()

    def finished(self, unit):
        return self.checkpoint.unit(unit.key())["rows"] is not None

    def rows(self, unit):
        return [Row(**row) for row in self.checkpoint.unit(unit.key())["rows"] or ()]

    def clean_table(self, units):
        """A bar all of whose units are finished has no rows but theirs (`units` holds all of a bar or none)."""
        for bar in dict.fromkeys(u.bar for u in units):
            mine = [u for u in units if u.bar == bar]
            if self.table and all(map(self.finished, mine)):
                self.table.only(bar, {row.what for u in mine for row in self.rows(u)})
                self.table.save()


def line_of(bar, row):
    verdict = {True: "holds", False: "MISSED", None: ""}[row.holds()]
    return f"{bar:<9} {row.what:<52} {measuring.figure(row.value):>9}  {row.needs():<8} {verdict:<7} {row.note}".rstrip()


def summary(driver, units):
    """Lines: every row, then what is missing and why, then the count."""
    lines, missed, held = [], 0, 0
    for unit in units:
        for row in driver.rows(unit):
            lines.append(line_of(unit.bar, row))
            missed += row.holds() is False
            held += row.holds() is True
    absent = [(u, driver.checkpoint.unit(u.key())["failed"]) for u in units if not driver.finished(u)]
    lines += [f"{u.bar:<9} {u.name}: {'cannot be measured: ' + why if why else 'not finished'}" for u, why in absent]
    lines.append(f"{held} bars hold, {missed} are missed, {len(absent)} measurements without a result; build of {driver.checkpoint.commit()}")
    return lines
