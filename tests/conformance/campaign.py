"""All verdicts of a run, counted: per kind of disk and transport, and what they come to.

A failure that the transport causes is known by `limits` and does not count against the disk.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from tests.conformance import profiles
from tests.conformance.limits import Limit, known
from tests.conformance.verdict import Outcome, Verdict

Lane = tuple[str, str]
"""Name of a kind of disk, name of a transport."""
Key = tuple[str, str, str]
"""Those of a lane, and a test."""


@dataclass(slots=True)
class Campaign:
    """The verdicts of a run.

    Attributes:
        lanes: The lanes, in the order of the tables.
        tests: The tests of each lane.
        kernel: Release of the kernel that it ran on.
        verdicts: The verdicts so far, by lane and test.
        missing: Tests without a verdict, likewise.
    """

    lanes: list[Lane]
    tests: list[str]
    kernel: str = ""
    verdicts: dict[Key, Verdict] = field(default_factory=dict)
    missing: set[Key] = field(default_factory=set)

    @classmethod
    def planned(cls, lanes: Iterable[Lane], tests: Iterable[str]) -> Self:
        """Return a run of all of `tests` on all of `lanes` that has not begun."""
        made = cls(list(lanes), list(tests))
        made.missing = {(*lane, test) for lane in made.lanes for test in made.tests}
        return made

    @classmethod
    def together(cls, campaigns: Iterable["Campaign"]) -> Self:
        """Return several runs as one; of two verdicts on the same, the later one counts.

        Raises:
            ValueError: They were made on different kernels.
        """
        made = cls([], [])
        for campaign in campaigns:
            if made.kernel and campaign.kernel not in ("", made.kernel):
                raise ValueError(f"these are verdicts from two kernels, {made.kernel} and {campaign.kernel}")
            made.kernel = made.kernel or campaign.kernel
            made.lanes += [lane for lane in campaign.lanes if lane not in made.lanes]
            made.tests += [test for test in campaign.tests if test not in made.tests]
            made.verdicts |= campaign.verdicts
            made.missing |= campaign.missing
        made.missing -= made.verdicts.keys()
        made.lanes.sort(key=_place)
        return made

    @classmethod
    def load(cls, text: str) -> Self:
        """Read a campaign from the JSON of `document`."""
        found = json.loads(text)
        made = cls([(lane[0], lane[1]) for lane in found["lanes"]], found["tests"], found["kernel"])
        made.missing = {(profile, transport, test) for profile, transport, test in found["missing"]}
        for verdict in found["verdicts"]:
            made.add(verdict)
        return made

    def document(self) -> dict[str, object]:
        """Return all of it as JSON has it."""
        return {
            "kernel": self.kernel,
            "lanes": self.lanes,
            "tests": self.tests,
            "missing": sorted(self.missing),
            "counts": [
                {"profile": profile, "transport": transport, **self.counts((profile, transport))}
                for profile, transport in self.lanes
            ],
            "verdicts": [verdict.document() for verdict in self.verdicts.values()],
        }

    def add(self, found: Mapping[str, object]) -> Verdict:
        """Take in one verdict, as the guest prints it."""
        words = dict(found) | {"reasons": tuple(_words(found["reasons"]))}
        verdict = Verdict(**words)  # type: ignore[arg-type]
        key = verdict.profile, verdict.transport, verdict.test
        self.verdicts[key] = verdict
        self.missing.discard(key)
        return verdict

    def of(self, lane: Lane) -> list[Verdict]:
        """Return the verdicts of a lane, in the order of the tests."""
        found = (self.verdicts.get((*lane, test)) for test in self.tests)
        return [verdict for verdict in found if verdict is not None]

    def counts(self, lane: Lane) -> Counter[Outcome]:
        """Return how many tests of a lane came out how."""
        return Counter(verdict.outcome for verdict in self.of(lane))

    def rest(self, transport: str, tests: Iterable[str]) -> list[str]:
        """Return those of `tests` that pass nowhere over a transport."""
        passed = self.passed_somewhere(transport)
        return [test for test in tests if test not in passed]

    def lacking(self, tests: Iterable[str]) -> set[Key]:
        """Return the tests that the tables still need.

        That is all of `tests` on the first kind of disk, and on the others those which do not pass there.
        """
        wanted = list(tests)
        found = set()
        for profile, transport in profiles.LANES:
            for test in wanted:
                first = self.verdicts.get((profiles.FIRST, transport, test))
                if profile == profiles.FIRST or first is None or first.outcome != "passed":
                    found.add((profile, transport, test))
        return found - self.verdicts.keys()

    def failures(self) -> list[tuple[Verdict, Limit | None]]:
        """Return the failures and crashes, each with its known cause."""
        return [
            (verdict, known(verdict))
            for lane in self.lanes
            for verdict in self.of(lane)
            if verdict.outcome in ("failed", "crashed")
        ]

    def clean(self) -> bool:
        """Tell whether all was run, and nothing failed but what the transport causes."""
        return not self.missing and all(limit is not None for _, limit in self.failures())

    def passing_lane(self, transport: str, test: str) -> str:
        """Return the first kind of disk on which a test passes over a transport, empty if there is none."""
        for lane in self.lanes:
            verdict = self.verdicts.get((*lane, test))
            if lane[1] == transport and verdict is not None and verdict.outcome == "passed":
                return lane[0]
        return ""

    def best(self, transport: str) -> Lane:
        """Return the lane of a transport on which most tests pass."""
        return max(
            (lane for lane in self.lanes if lane[1] == transport),
            key=lambda lane: self.counts(lane)["passed"],
        )

    def passed_somewhere(self, transport: str) -> set[str]:
        """Return the tests that pass on some kind of disk."""
        return {
            verdict.test
            for verdict in self.verdicts.values()
            if verdict.transport == transport and verdict.outcome == "passed"
        }


def _place(lane: Lane) -> tuple[int, int]:
    """Return where a lane stands in the tables."""
    return profiles.TRANSPORTS.index(lane[1]), list(profiles.PROFILES).index(lane[0])


def _words(value: object) -> Iterable[str]:
    return value if isinstance(value, list) else ()
