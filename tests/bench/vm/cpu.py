"""CPU time, of processes and of the machine, as the kernel counts it."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_IDLE, _IOWAIT, _GUEST = 3, 4, 8


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of CPU time.

    Attributes:
        processes: Of the processes asked for, all their threads.
        machine: Of all CPUs, less the time in which they were idle.
    """

    processes: float
    machine: float


class Clock:
    """Counts from its making on.

    Args:
        pids: Processes that live until `stop`.
    """

    def __init__(self, pids: tuple[int, ...]) -> None:
        self._pids = pids
        self._start = self._now()

    def stop(self) -> Spent:
        """Return the processor time spent meanwhile."""
        now = self._now()
        return Spent(now.processes - self._start.processes, now.machine - self._start.machine)

    def _now(self) -> Spent:
        return Spent(sum(map(process_seconds, self._pids)), machine_seconds())


def process_seconds(pid: int) -> float:
    """Return the CPU time of a process's living threads, to the nanosecond (/proc/PID/task/N/schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def machine_seconds() -> float:
    """Return the time that all CPUs have worked (the first line of /proc/stat)."""
    words = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    ticks = [int(word) for word in words[:_GUEST]]
    return (sum(ticks) - ticks[_IDLE] - ticks[_IOWAIT]) / _TICK
