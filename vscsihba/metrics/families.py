"""The metrics of vscsihba: name, unit, labels and source of each.

Names and units follow OpenMetrics: base units, and ``_total`` for what only grows. Knows the status and the
statistics of disks, not who reads the metrics.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from vscsihba.daemon.calls import HbaStatus, LunStatus, Status
from vscsihba.daemon.statistics import LunStatistics, histograms
from vscsihba.handlers.shared.optional import need

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LIMITS: Final = (*(digit * 10.0**power for power in range(-5, 1) for digit in (1, 2.5, 5)), 10.0, 30.0, 60.0)
"""Seconds up to which the buckets of the latency histograms count."""

_OPERATIONS: Final = {"reads": "read", "writes": "write", "others": "other"}
"""The label of each of `vscsihba.latency.KINDS`."""

_LUN: Final = ("hba", "lun")


def library(module: str) -> Any:
    """Import a module of prometheus-client.

    Raises:
        HostError: The package is not installed.
    """
    return need(
        f"prometheus_client.{module}",
        package="prometheus-client",
        debian="python3-prometheus-client",
        extra="metrics",
        user="the command metrics",
    )


class Families:
    """The metrics of one moment.

    Args:
        status: The state of everything.
        statistics: Counters and latencies of the LUNs that are served.

    Raises:
        HostError: The package prometheus-client is not installed.
    """

    def __init__(self, status: Status, statistics: Sequence[LunStatistics]) -> None:
        self._core = library("core")
        self._status = status
        self._statistics = statistics

    def collect(self) -> Iterator["Metric"]:
        """Yield every metric, with its values."""
        yield from self._service()
        yield from self._engines()
        yield from self._luns()
        yield from self._traffic()
        yield self._latencies()

    def _service(self) -> Iterator["Metric"]:
        daemon = self._status["daemon"]
        yield self._gauge("vscsihba_service_up", "Whether the service runs.", {(): daemon is not None})
        if daemon is not None:
            yield self._gauge(
                "vscsihba_service_start_time_seconds",
                "Start of the service, in seconds since 1970.",
                {(): daemon["since"]},
                unit="seconds",
            )
        yield self._gauge(
            "vscsihba_service_problems",
            "Problems of the service that belong to no single LUN.",
            {(): len(self._status["problems"])},
        )

    def _engines(self) -> Iterator["Metric"]:
        engines = {
            (str(hba["id"]), str(engine["pid"])): engine
            for hba in self._status["hbas"]
            for engine in hba["engines"]
        }
        labels = ("hba", "pid")
        up = {key: engine["state"] == "running" for key, engine in engines.items()}
        yield self._gauge("vscsihba_engine_up", "Whether the engine answers.", up, labels)
        since = {key: engine["since"] for key, engine in engines.items()}
        text = "Start of the engine, in seconds since 1970."
        yield self._gauge("vscsihba_engine_start_time_seconds", text, since, labels, unit="seconds")

    def _luns(self) -> Iterator["Metric"]:
        luns = {
            (str(hba["id"]), str(lun["lun"])): (hba, lun)
            for hba in self._status["hbas"]
            for lun in hba["luns"]
        }
        info = {_info(hba, lun): 1 for hba, lun in luns.values()}
        labels = (*_LUN, "backstore", "device", "stack")
        yield self._gauge("vscsihba_lun_info", "Names of the LUN; always 1.", info, labels)
        up = {key: lun["state"] == "running" for key, (_, lun) in luns.items()}
        yield self._gauge("vscsihba_lun_up", "Whether an engine serves the LUN without a failure.", up, _LUN)
        size = {key: lun["size"] for key, (_, lun) in luns.items() if lun["size"] is not None}
        yield self._gauge("vscsihba_lun_size_bytes", "Capacity of the LUN.", size, _LUN, unit="bytes")

    def _traffic(self) -> Iterator["Metric"]:
        commands = self._core.CounterMetricFamily(
            "vscsihba_lun_commands", "Commands that ended with GOOD.", labels=(*_LUN, "operation")
        )
        moved = self._core.CounterMetricFamily(
            "vscsihba_lun_transferred_bytes",
            "Bytes of READ and WRITE commands that ended with GOOD.",
            labels=(*_LUN, "operation"),
            unit="bytes",
        )
        errors = self._core.CounterMetricFamily(
            "vscsihba_lun_errors", "Commands that ended with a status other than GOOD.", labels=_LUN
        )
        waits = self._core.CounterMetricFamily(
            "vscsihba_lun_waits", "Block operations that had to wait on a thread.", labels=_LUN
        )
        for lun in self._statistics:
            key, counters = _key(lun), lun["counters"]
            for kind, operation in _OPERATIONS.items():
                commands.add_metric((*key, operation), counters[kind])
            moved.add_metric((*key, "read"), counters["read_bytes"])
            moved.add_metric((*key, "write"), counters["write_bytes"])
            errors.add_metric(key, counters["errors"])
            waits.add_metric(key, counters["waits"])
        yield from (commands, moved, errors, waits)

    def _latencies(self) -> "Metric":
        family = self._core.HistogramMetricFamily(
            "vscsihba_lun_command_duration_seconds",
            "Time from the arrival of a command to its completion; an error is an other command.",
            labels=(*_LUN, "operation"),
            unit="seconds",
        )
        for lun in self._statistics:
            for kind, histogram in histograms(lun["latencies"]).items():
                counts = histogram.cumulative(LIMITS)
                buckets = [(repr(limit), count) for limit, count in zip(LIMITS, counts, strict=True)]
                family.add_metric(
                    (*_key(lun), _OPERATIONS[kind]),
                    buckets=[*buckets, ("+Inf", histogram.count)],
                    sum_value=histogram.seconds,
                )
        return family  # type: ignore[no-any-return]

    def _gauge(
        self,
        name: str,
        text: str,
        values: Mapping[Any, float],
        labels: Sequence[str] = (),
        *,
        unit: str = "",
    ) -> "Metric":
        family = self._core.GaugeMetricFamily(name, text, labels=labels, unit=unit)
        for key, value in values.items():
            family.add_metric(key, float(value))
        return family  # type: ignore[no-any-return]


def _key(lun: LunStatistics) -> tuple[str, str]:
    return str(lun["hba"]), str(lun["lun"])


def _info(hba: HbaStatus, lun: LunStatus) -> tuple[str, ...]:
    names = lun["backstore"], lun["device"], lun["stack"]
    return str(hba["id"]), str(lun["lun"]), *(name or "" for name in names)
