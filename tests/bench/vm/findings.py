"""The findings of a run in the VM, and their medians, spreads and ratios."""

import json
import statistics
from collections.abc import Iterable
from typing import Any, Final

OURS: Final = "vscsihba"

Finding = dict[str, Any]


class Findings:
    """The lines that the guest has printed.

    Args:
        lines: One JSON object each.
    """

    def __init__(self, lines: Iterable[Finding]) -> None:
        self.lines = list(lines)

    @classmethod
    def load(cls, text: str) -> "Findings":
        """Read findings that `dump` wrote."""
        return cls(json.loads(text))

    def dump(self) -> str:
        """Return everything as JSON, a finding a line."""
        return "[\n" + ",\n".join(json.dumps(line) for line in self.lines) + "\n]\n"

    def of(self, kind: str) -> list[Finding]:
        """Return the findings of one kind."""
        return [line for line in self.lines if line["kind"] == kind]

    @property
    def groups(self) -> list[str]:
        """Names of the comparisons of stacks, in order."""
        return list(dict.fromkeys(line["group"] for line in self.of("stack")))

    def group(self, name: str) -> "Findings":
        """Return the samples of one comparison of stacks."""
        return Findings({**line, "kind": "sample"} for line in self.of("stack") if line["group"] == name)

    @property
    def machine(self) -> Finding:
        """Where it was run."""
        return self.of("machine")[0]

    @property
    def workloads(self) -> list[str]:
        """Names, in order."""
        return list(dict.fromkeys(line["workload"] for line in self.of("sample")))

    @property
    def contestants(self) -> list[str]:
        """Names, in order."""
        return list(dict.fromkeys(line["contestant"] for line in self.of("sample")))

    @property
    def rounds(self) -> int:
        """How often each workload was run on each contestant."""
        return max((len(self.values(w, c)) for w in self.workloads for c in self.contestants), default=0)

    def values(self, workload: str, contestant: str, field: str = "iops") -> list[float]:
        """Return one field of all rounds, in order."""
        return [
            line[field]
            for line in self.of("sample")
            if (line["workload"], line["contestant"]) == (workload, contestant)
        ]

    def median(self, workload: str, contestant: str, field: str = "iops") -> float:
        """Return the middle of all rounds, 0 without any."""
        found = self.values(workload, contestant, field)
        return statistics.median(found) if found else 0.0

    def ratio(self, workload: str, peer: str) -> float:
        """Return how many times as quick ours is: the median of the ratios of each round; 0 without any."""
        pairs = zip(self.values(workload, OURS), self.values(workload, peer), strict=False)
        ratios = [ours / theirs for ours, theirs in pairs if theirs]
        return statistics.median(ratios) if ratios else 0.0

    def best_ratio(self, workload: str, peer: str) -> float:
        """Return the quickest round of ours as a multiple of the quickest one of a peer; 0 without any.

        Other programs on the host make rounds slower, and none of them quicker.
        """
        ours, theirs = self.values(workload, OURS), self.values(workload, peer)
        return max(ours) / max(theirs) if ours and theirs else 0.0

    def cost_ratio(self, workload: str, peer: str) -> float:
        """Return how many commands of ours cost the host as much CPU time as one of a peer; 0 without any.

        Like `ratio`, it is the median of the rounds, and above 1 where ours is better.
        """
        names = (OURS, peer)
        pairs = zip(*(self.values(workload, name, "host_us") for name in names), strict=False)
        ratios = [theirs / ours for ours, theirs in pairs if ours > 0]
        return statistics.median(ratios) if ratios else 0.0

    def scaling(self) -> dict[int, dict[int, float]]:
        """Return the median of commands a second, by engines, then by LUNs."""
        found: dict[int, dict[int, list[float]]] = {}
        for line in self.of("scaling"):
            found.setdefault(line["engines"], {}).setdefault(line["luns"], []).append(line["iops"])
        return {
            engines: {luns: statistics.median(values) for luns, values in by_luns.items()}
            for engines, by_luns in found.items()
        }
