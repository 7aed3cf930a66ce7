"""Counters and latencies of all LUNs, as their engines tell them: of the service, and of any other program.

Knows how engines are asked, not how statistics are shown.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypedDict, cast

from vscsihba.control.client import NotListeningError, call
from vscsihba.engine.owner import control_sockets
from vscsihba.engine.owning.locks import RUN, pid_of, run_directories
from vscsihba.errors import UsageError, VscsihbaError
from vscsihba.latency import Histogram

_PATIENCE: Final = 5.0
"""Seconds for an engine to answer."""


class LunStatistics(TypedDict):
    """Statistics of a LUN since it was added, or since they were cleared.

    `counters` are those of `vscsihba.stats.LunStats`. `latencies` has a histogram for each of
    `vscsihba.latency.KINDS`, as pairs of a bucket and its count. `engine` is the pid of the owner.
    """

    hba: int
    lun: int
    engine: int
    counters: dict[str, int]
    latencies: dict[str, list[tuple[int, int]]]


def statistics(run: Path = RUN) -> list[LunStatistics]:
    """Return the statistics of every LUN that is served, in order of HBA and LUN.

    An engine that does not answer is left out: its state is in ``vscsihba status``.

    Args:
        run: Directory of the engines' sockets.
    """
    found = [
        cast("LunStatistics", {"hba": hba, "engine": pid, **lun})
        for hba, pid, socket in _engines(run)
        for lun in _asked(socket)
    ]
    return sorted(found, key=lambda lun: (lun["hba"], lun["lun"]))


def clear_statistics(hba: int, lun: int, run: Path = RUN) -> None:
    """Let the statistics of a LUN begin anew.

    Args:
        hba: 0..255.
        lun: Its number.
        run: Directory of the engines' sockets.

    Raises:
        UsageError: No engine serves it.
        HostError: An engine does not answer.
    """
    sockets = [socket for number, _, socket in _engines(run) if number == hba]
    if not any(_cleared(socket, lun) for socket in sockets):
        raise UsageError(f"no engine serves LUN {lun} of HBA {hba}", cure='see "vscsihba status"')


def histograms(latencies: Mapping[str, list[tuple[int, int]]]) -> dict[str, Histogram]:
    """Return the histograms of `LunStatistics`, as values."""
    return {kind: Histogram(dict(pairs)) for kind, pairs in latencies.items()}


def _engines(run: Path) -> Iterator[tuple[int, int, Path]]:
    """Yield the HBA, the pid and the control socket of every engine."""
    for hba in run_directories(run):
        for socket in control_sockets(hba, run):
            yield hba, pid_of(socket), socket


def _asked(socket: Path) -> list[dict[str, Any]]:
    try:
        return cast("list[dict[str, Any]]", call(socket, "statistics", timeout=_PATIENCE))
    except VscsihbaError:
        return []


def _cleared(socket: Path, lun: int) -> bool:
    try:
        return call(socket, "clear_statistics", {"lun": lun}, timeout=_PATIENCE) is True
    except NotListeningError:
        return False
