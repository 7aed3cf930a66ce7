"""The state of all disks: asked of the service, or of the kernel and the engines where no service runs."""

from vscsihba.daemon import statistics
from vscsihba.daemon.calls import Daemon, NoDaemonError, Status
from vscsihba.daemon.kernel_status import kernel_status
from vscsihba.daemon.statistics import LunStatistics


def machine_status() -> Status:
    """Return the state of every HBA, LUN and engine.

    Raises:
        UsageError, HostError: The service, or the kernel, does not tell.
    """
    try:
        return Daemon().status()
    except NoDaemonError:
        return kernel_status()


def machine_statistics() -> list[LunStatistics]:
    """Return counters and latencies of every LUN that is served; errors as `machine_status`."""
    try:
        return Daemon().statistics()
    except NoDaemonError:
        return statistics.statistics()


def clear_statistics(hba: int, lun: int) -> None:
    """Let the counters and latencies of a LUN begin anew.

    Raises:
        UsageError: No engine serves it.
        HostError: An engine, or the service, does not answer.
    """
    try:
        Daemon().clear_statistics(hba, lun)
    except NoDaemonError:
        statistics.clear_statistics(hba, lun)
