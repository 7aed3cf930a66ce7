"""The simulator from the command line: ``./dev sim``.

Runs the exhaustive lane once and random histories for the time that is left, on every processor,
and prints each broken promise with the words that bring it about again.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from tests.sim import several_faults as several
from tests.sim.engine_faults import EngineLane
from tests.sim.engines import Handovers
from tests.sim.exhaustive import Exhaustive, Finding, parse_point
from tests.sim.histories import Histories
from tests.sim.layers import LAYERS
from tests.sim.remote import REMOTE
from tests.sim.resized import RESIZED
from tests.sim.service import ServiceLane
from tests.sim.service_scripts import SCRIPTS

DISKS: Final = {**LAYERS, **RESIZED, **REMOTE}
ENGINE: Final = "engine"
ALL: Final = (*DISKS, ENGINE, *SCRIPTS)
MEMORY: Final = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
_CHUNK: Final = 50
"""Histories in a row on the same process."""


@dataclass
class Tally:
    """The results of some runs.

    Attributes:
        points: Fault points of the exhaustive lane.
        histories: Of the random lane.
        requests: Sent by initiators.
        failed: Answered with an error.
        virtual: Seconds of virtual time.
        kinds: Faults by kind of call and error.
        findings: Broken promises.
    """

    points: int = 0
    histories: int = 0
    requests: int = 0
    failed: int = 0
    virtual: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Add the results of other runs."""
        self.points += other.points
        self.histories += other.histories
        self.requests += other.requests
        self.failed += other.failed
        self.virtual += other.virtual
        self.kinds.update(other.kinds)
        self.findings += other.findings


def exhaustive_lane(name: str, root: Path) -> Exhaustive | EngineLane | ServiceLane:
    """Return the exhaustive lane of a disk, of an engine, or of a script of the service."""
    if name == ENGINE:
        return EngineLane(LAYERS["file"], root)
    return ServiceLane(SCRIPTS[name], root) if name in SCRIPTS else Exhaustive(DISKS[name], root)


def exhaustive(name: str, part: int, parts: int) -> Tally:
    """Strike every `parts`-th fault point of a layer or script, beginning with number `part`."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="sim-", dir=MEMORY) as root:
        lane = exhaustive_lane(name, Path(root))
        for point in islice(lane.points(), part, None, parts):
            tally.points += 1
            tally.kinds[point.fault.how] += 1
            finding = lane.strike(point)
            if finding is not None:
                tally.findings.append(finding)
    return tally


def several_faults(name: str, most: int) -> Tally:
    """Strike every set of up to `most` faults while a disk is resized."""
    tally = Tally()
    for script in several.SCRIPTS:
        with tempfile.TemporaryDirectory(prefix="sim-", dir=MEMORY) as root:
            lane = several.SeveralFaults(replace(DISKS[name], script=script), Path(root))
            tally.findings += lane.findings(most)
            tally.points += lane.runs
    return tally


def histories(name: str, first: int, count: int, *, shrink: bool = True) -> Tally:
    """Play some histories of a layer."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="sim-", dir=MEMORY) as root:
        lane = Histories(DISKS[name], Path(root))
        for seed in range(first, first + count):
            outcome = lane.play(seed)
            tally.histories += 1
            tally.requests += outcome.requests
            tally.failed += outcome.failed
            tally.virtual += outcome.seconds
            tally.kinds += outcome.kinds
            if outcome.message:
                short = lane.shrink(outcome) if shrink else outcome
                faults = ", ".join(map(str, short.faults)) or "none"
                tally.findings.append(
                    Finding(name, f"seed {seed}", f"faults needed: {faults}", short.message)
                )
    return tally


def handovers(name: str, first: int, count: int) -> Tally:
    """Play some histories of engines that serve a layer, die and hand over."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="sim-", dir=MEMORY) as root:
        lane = Handovers(LAYERS[name], Path(root))
        for seed in range(first, first + count):
            outcome = lane.play(seed)
            tally.histories += 1
            tally.requests += outcome.requests
            tally.failed += outcome.failed
            tally.kinds.update(fault.how for fault in outcome.faults)
            if outcome.message:
                tally.findings.append(Finding(name, f"engines, seed {seed}", "", outcome.message))
    return tally


Job = tuple[Callable[..., Tally], str, int, int]
"""A lane, a layer, and two numbers that say which part of it."""


def jobs(names: list[str], processes: int, wanted: argparse.Namespace) -> Iterator[Job]:
    """Yield the work there is, the exhaustive lane first; the random lane never ends."""
    if wanted.lane in ("all", "exhaustive"):
        for name in names:
            for part in range(processes):
                yield exhaustive, name, part, processes
    lanes = {"all": (histories, handovers), "histories": (histories,), "engines": (handovers,)}
    seed = random.SystemRandom().randrange(1 << 40) if wanted.seed is None else wanted.seed
    disks = [name for name in names if name in DISKS]
    while disks and wanted.lane in lanes:
        for name in disks:
            for lane in lanes[wanted.lane]:
                if lane is histories or name in LAYERS:
                    yield lane, name, seed, _CHUNK
        seed += _CHUNK


def run_all(names: list[str], wanted: argparse.Namespace) -> Tally:
    """Run lanes on every processor until the time is over."""
    end = time.monotonic() + wanted.minutes * 60
    tally = Tally()
    processes = wanted.jobs
    with ProcessPoolExecutor(processes) as pool:
        work = jobs(names, processes, wanted)
        running = {pool.submit(job[0], *job[1:]) for job in islice(work, processes + 1)}
        while running:
            done = next(as_completed(running))
            running.remove(done)
            tally.add(done.result())
            job = next(work, None)
            if job is not None and (job[0] is exhaustive or time.monotonic() < end):
                running.add(pool.submit(job[0], *job[1:]))
    return tally


def again(name: str, wanted: argparse.Namespace) -> Tally:
    """Run one history or one fault point, and print its system calls if asked to."""
    tally = Tally()
    trace: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sim-", dir=MEMORY) as root:
        if wanted.point:
            finding = exhaustive_lane(name, Path(root)).strike(parse_point(wanted.point), trace)
            tally.points = 1
        else:
            lane = Handovers if wanted.lane == "engines" else Histories
            outcome = lane(DISKS[name], Path(root)).play(wanted.seed, trace=True)
            trace, tally.histories, tally.requests = outcome.trace, 1, outcome.requests
            found = f"faults: {', '.join(map(str, outcome.faults))}"
            finding = (
                Finding(name, f"seed {wanted.seed}", found, outcome.message) if outcome.message else None
            )
    if wanted.trace:
        print(*trace, sep="\n")
    tally.findings = [finding] if finding else []
    return tally


def show(tally: Tally) -> None:
    """Print the results of the runs, for a reader."""
    for finding in tally.findings:
        print(f"\n{finding.layer}: {finding.point}: {finding.struck}\n    {finding.message}")
        *lane, seed = finding.point.split("seed ")
        again = f"--seed {seed} --trace" if lane == [""] else f"--point {finding.point} --trace"
        option = f"--lane engines --seed {seed} --trace" if lane == ["engines, "] else again
        print(f"    again: ./dev sim {option} {finding.layer}")
    print(
        f"\n{tally.points:,} fault points; {tally.histories:,} histories with {tally.requests:,} requests "
        f"({tally.failed:,} failed) in {tally.virtual:,.0f} s of virtual time"
    )
    faults = ", ".join(f"{kind} {count:,}" for kind, count in tally.kinds.most_common())
    print(f"{sum(tally.kinds.values()):,} faults: {faults}")
    print(f"{len(tally.findings)} broken promises")


def main() -> int:
    """Run the lanes of the command line; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="./dev sim", description="deterministic simulation: every fault, one seed"
    )
    parser.add_argument(
        "layers",
        nargs="*",
        metavar="LAYER",
        help=f"one of {', '.join(ALL)}; all by default; those of engine and service have no random histories",
    )
    parser.add_argument(
        "--seed", type=int, help="begin with this seed; with one LAYER and --trace: only this history"
    )
    parser.add_argument("--point", help="only this fault point of the exhaustive lane, such as EIO@12:power")
    parser.add_argument(
        "--faults",
        type=int,
        metavar="N",
        help="only this: every set of up to N faults while one LAYER is resized; 3 take an hour",
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="for random histories; 1 by default")
    parser.add_argument("--lane", choices=("all", "exhaustive", "histories", "engines"), default="all")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes; all processors by default"
    )
    parser.add_argument(
        "--trace",
        action="store_true",
        help="with --seed or --point: play only that, and print every system call",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    wanted = parser.parse_args()
    names = wanted.layers or list(ALL)
    if unknown := sorted(set(names) - set(ALL)):
        parser.error(f"no layer {', '.join(unknown)}; known are {', '.join(ALL)}")
    if wanted.lane == "engines" and set(wanted.layers) - set(LAYERS):
        parser.error(f"engines hand over {', '.join(LAYERS)} only: leave out --lane engines")
    if wanted.point and len(names) != 1:
        parser.error("--point needs one LAYER")
    if wanted.faults and not (len(names) == 1 and names[0] in RESIZED):
        parser.error(f"--faults needs one LAYER of {', '.join(RESIZED)}")
    if wanted.seed is not None and len(names) == 1 and names[0] not in DISKS:
        parser.error(f"{names[0]} has no random histories: use --point")
    single = wanted.point or (wanted.seed is not None and len(names) == 1 and wanted.trace)
    if wanted.faults:
        tally = several_faults(names[0], wanted.faults)
    else:
        tally = again(names[0], wanted) if single else run_all(names, wanted)
    if wanted.json:
        print(json.dumps(tally, default=vars, indent=2))
    else:
        show(tally)
    return bool(tally.findings)


if __name__ == "__main__":
    sys.exit(main())
