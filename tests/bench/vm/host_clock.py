"""Processor time of the whole VM, as the host counts it: both ends of a question and its answer.

The guest writes a line and reads one. On a busy host, commands a second say more about the other programs
than about the disk; the processor time that a command costs the host stays the same.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TextIO

KIND: Final = "host clock"
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PPID, _CUTIME, _CSTIME = 1, 13, 14
"""Fields of /proc/PID/stat, counted from the one behind the name (proc(5))."""


def ask(asking: TextIO = sys.stdout, answer: TextIO = sys.stdin) -> float:
    """Return the seconds that the VM has taken; 0 if nobody answers. Called in the guest."""
    print(json.dumps({"kind": KIND}), file=asking, flush=True)
    return float(answer.readline() or 0)


def process_tree_seconds(root: int) -> float:
    """Return the processor time of a process and of its descendants, also of those that have ended."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if fields := _stat(entry):
            parents[int(entry.name)] = int(fields[_PPID])
    return sum(map(_seconds, _tree(root, parents)))


def _tree(root: int, parents: dict[int, int]) -> Iterable[int]:
    yield root
    for child in [pid for pid, parent in parents.items() if parent == root]:
        yield from _tree(child, parents)


def _seconds(pid: int) -> float:
    """Return the processor time of a process and of its children that have ended; 0 without a process."""
    folder = Path(f"/proc/{pid}")
    fields = _stat(folder)
    if not fields:
        return 0.0
    ended = (int(fields[_CUTIME]) + int(fields[_CSTIME])) / _TICK
    try:
        tasks = [int((task / "schedstat").read_text().split()[0]) for task in (folder / "task").iterdir()]
    except OSError:
        return ended
    return ended + sum(tasks) / 1e9


def _stat(folder: Path) -> list[str]:
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
