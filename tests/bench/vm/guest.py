"""The part that runs where the kernel is: ``python -m tests.bench.vm.guest``, one JSON line a finding.

Rounds are outermost: every contestant runs a workload right after the others, and all of
that again in the next round, so that a slow moment of the machine hits all alike.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.vm import peers, scaling, system_calls
from tests.bench.vm.host_clock import ask
from tests.bench.vm.stack_peers import cipher
from tests.bench.vm.stack_peers import compare as stack_peers
from tests.bench.vm.workload import WORKLOADS, Workload, measure, no_host

PARTS: Final = ("calls", "peers", "stacks", "idle", "footprint", "scaling")
_SIZE: Final = 64 << 20
CLOCK: Final = Path("/sys/devices/system/clocksource/clocksource0")
_MEMORY: Final = Path("/dev/shm")


def parser() -> argparse.ArgumentParser:
    """Return the parser of what can be chosen, in the guest and outside."""
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--part", action="append", metavar="PART", help="only this part; may be repeated")
    made.add_argument(
        "--peer", action="append", choices=peers.PEERS, help="only this contestant; may be repeated"
    )
    made.add_argument(
        "--workload", action="append", metavar="WORDS", help="only those with these words; may be repeated"
    )
    made.add_argument(
        "--stack", action="append", metavar="WORDS", help="only stacks with these words; may be repeated"
    )
    made.add_argument("--rounds", type=int, default=3, help="times that everything is run (3)")
    made.add_argument("--seconds", type=float, default=1.5, help="length of one run (1.5)")
    made.add_argument(
        "--plain", action="store_true", help="a QEMU guest as it comes: no tuning by the runner"
    )
    made.add_argument("--quick", action="store_true", help="the shortest form: shows that all of it works")
    return made


def check_parts(made: argparse.ArgumentParser, options: argparse.Namespace, parts: Sequence[str]) -> None:
    """End the program if a part is named that is not one of `parts`."""
    if unknown := set(options.part or ()) - set(parts):
        made.error(f"no part {' '.join(sorted(unknown))} here: the parts are {', '.join(parts)}")


def chosen(options: argparse.Namespace) -> list[Workload]:
    """Return the workloads that were asked for."""
    wanted = options.workload or [""]
    return [work for work in WORKLOADS if any(words in work.name for words in wanted)]


class Guest:
    """The parts, each of which says what it finds."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.host = ask if options.host_clock else no_host

    def run(self, part: str) -> None:
        """Run one of `PARTS`."""
        runners: dict[str, Callable[[], None]] = {
            "peers": self.peers,
            "stacks": self.stacks,
            "calls": self.calls,
            "scaling": self.scaling,
            "footprint": self.footprint,
            "idle": self.idle,
        }
        runners[part]()

    def peers(self) -> None:
        """Compare contestants."""
        names = self.options.peer or list(peers.PEERS)
        with peers.contestants(self.folder, names, _SIZE) as contestants, peers.unprobed():
            for _ in range(self.options.rounds):
                for workload in chosen(self.options):
                    for contestant in contestants:
                        sample = measure(contestant, workload, self.options.seconds, self.host)
                        say("sample", sample.document())

    def stacks(self) -> None:
        """Compare stacks with what does the same job."""
        groups = stack_peers.chosen(self.options.stack or ())
        if any(group.name.startswith("encrypt") for group in groups):
            say("cipher", cipher.measure())
        for group in groups:
            stack_peers.compare(group, self.folder, self.options.rounds, self.options.seconds, say, self.host)

    def calls(self) -> None:
        """Count system calls at depth 32."""
        with peers.contestants(self.folder, ["vscsihba"], _SIZE) as (contestant,):
            for workload in WORKLOADS:
                if workload.name in ("4 KiB random read, depth 32", "4 KiB random write, depth 32"):
                    found = system_calls.count(contestant, workload, self.options.seconds, self.folder)
                    say("calls", found)

    def scaling(self) -> None:
        """Run several LUNs at once."""
        luns = (1, 2) if self.options.quick else (1, 2, 4, 8)
        for found in scaling.throughput(self.folder, self.options.seconds, self.options.rounds, luns, (1, 2)):
            say("scaling", found)

    def footprint(self) -> None:
        """Serve few LUNs and many, and see how quickly programs start."""
        for found in scaling.footprint(self.folder, (1, 4) if self.options.quick else (1, 10, 100)):
            say("footprint", found)
        say("start", scaling.start_up(1 if self.options.quick else 5))

    def idle(self) -> None:
        """Do nothing."""
        luns, seconds = (2, 3) if self.options.quick else (20, 60)
        say("idle", scaling.idle(self.folder, luns, seconds))


def use_a_quick_clock() -> None:
    """Let the kernel read the time from the processor, if it offers that.

    An emulated guest may have chosen a timer of the machine (hpet), which takes many times as long as
    what is to be measured: fio looks at the clock several times for each command.
    """
    for name in ("kvm-clock", "tsc"):
        if name in (CLOCK / "available_clocksource").read_text().split():
            (CLOCK / "current_clocksource").write_text(name)
            return


def say(kind: str, finding: dict[str, Any]) -> None:
    """Print one finding."""
    print(json.dumps({"kind": kind, **finding}), flush=True)


def main() -> int:
    """Run the measurements that were asked for."""
    made = argparse.ArgumentParser(description=__doc__, parents=[parser()])
    made.add_argument("--host-clock", action="store_true", help="ask for the CPU time of the VM on stdin")
    options = made.parse_args()
    check_parts(made, options, PARTS)
    parts = options.part or PARTS
    missing = peers.missing(options.peer or peers.PEERS) if "peers" in parts else []
    missing += ["strace"] if "calls" in parts and shutil.which("strace") is None else []
    if missing:
        sys.stderr.write(f"bench: not installed: {' '.join(missing)}\n")
        return 1
    if not options.plain:
        use_a_quick_clock()
    machine = {
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "clock": (CLOCK / "current_clocksource").read_text().strip(),
        "seconds": options.seconds,
    }
    say("machine", machine)
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        guest = Guest(options, Path(folder))
        for part in PARTS:
            if part in parts:
                guest.run(part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
