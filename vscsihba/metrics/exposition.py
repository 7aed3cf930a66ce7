"""The metrics as text: OpenMetrics, the older text format of Prometheus, JSON."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from vscsihba.metrics.families import Families, library

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Exposition:
    """The metrics of the moment when they are asked for.

    Args:
        now: Returns them.
    """

    def __init__(self, now: Callable[[], Families]) -> None:
        self._now = now

    def collect(self) -> Iterator["Metric"]:
        """Yield the metrics; prometheus-client takes this object for a registry."""
        return self._now().collect()

    def open_metrics(self) -> bytes:
        """Return them as OpenMetrics.

        Raises:
            HostError: The package prometheus-client is not installed.
        """
        return bytes(library("openmetrics.exposition").generate_latest(self))

    def text(self) -> bytes:
        """Return them in the text format of Prometheus; errors as `open_metrics`."""
        return bytes(library("exposition").generate_latest(self))

    def page(self, accept: str) -> tuple[str, bytes]:
        """Return content type and body in the format that a client accepts; errors as `open_metrics`."""
        encode, kind = library("exposition").choose_encoder(accept)
        return str(kind), bytes(encode(self))

    def as_json(self) -> list[dict[str, object]]:
        """Return every sample with its labels."""
        return [
            {"name": sample.name, "labels": dict(sample.labels), "value": sample.value}
            for family in self.collect()
            for sample in family.samples
        ]
