"""CPU time, of processes and of the machine, as the kernel counts it."""

import os
from collections.abc import Callable
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
        host: Of the whole VM on its host; 0 if the host was not asked.
    """

    processes: float
    machine: float
    host: float


class Clock:
    """Counts from its making on.

    Args:
        pids: Processes that live until `stop`.
        host: Returns the processor time of the VM on its host.
    """

    def __init__(self, pids: tuple[int, ...], host: Callable[[], float]) -> None:
        self._pids = pids
        self._host = host
        self._start = self._now()

    def stop(self) -> Spent:
        """Return the processor time spent meanwhile."""
        now = self._now()
        start = self._start
        return Spent(now.processes - start.processes, now.machine - start.machine, now.host - start.host)

    def _now(self) -> Spent:
        return Spent(sum(map(process_seconds, self._pids)), machine_seconds(), self._host())


def process_seconds(pid: int) -> float:
    """Return the CPU time of a process's living threads, to the nanosecond (/proc/PID/task/N/schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def machine_seconds() -> float:
    """Return the time that all CPUs have worked (the first line of /proc/stat)."""
    words = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    ticks = [int(word) for word in words[:_GUEST]]
    return (sum(ticks) - ticks[_IDLE] - ticks[_IOWAIT]) / _TICK
