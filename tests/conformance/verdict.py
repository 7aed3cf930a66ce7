"""The verdict on one test, read from the output of ``iscsi-test-cu -V``.

CUnit counts a skipped test as passed, so the exit code says nothing: what counts is what stands
after the line ``Suite:``. Everything before it is the tool's own look at the disk.
"""

import re
from dataclasses import asdict, dataclass
from typing import Final, Literal

Outcome = Literal["passed", "failed", "skipped", "crashed"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("passed", "failed", "skipped", "crashed")

_ASSERTION = re.compile(r"^\s+\d+\. (\S+:\d+) +- (.*?)(?:    Send .*)?$", re.MULTILINE)
_FAILED_COMMAND = re.compile(r"^\s*\[FAILED\] (.*)$", re.MULTILINE)
_SKIPPED = re.compile(r"\[SKIPPED\] *(.*?) *$", re.MULTILINE)
_SENT = re.compile(r"^\s*(?:Send |Test |\[OK\]|.*\w (?:queued|dispatched): )", re.MULTILINE)
"""What the tool says of a command that it sends; the words about those that it does not wait for differ."""
_PASSED: Final = re.compile(r"^.*\bpassed(?=$|    Send )", re.MULTILINE)
"""CUnit's word for a test that has ended well. What comes after it is the tool clearing up."""
_MOST_REASONS: Final = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """One test on one kind of disk, reached one way.

    Attributes:
        profile: Name of the kind of disk.
        transport: ``sg`` or ``iscsi``.
        test: ``Family.Test``.
        outcome: ``crashed`` is also the tool that never ended, or never began with the test.
        reasons: Why it did not pass, in the tool's words.
        seconds: How long the tool ran.
    """

    profile: str
    transport: str
    test: str
    outcome: Outcome
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0

    def document(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return asdict(self)


def judge(output: str, exit_code: int) -> tuple[Outcome, tuple[str, ...]]:
    """Return the outcome of one run of the tool for one test, and the reasons.

    Args:
        output: All that the tool wrote.
        exit_code: Its own; negative: ended by a signal.
    """
    before, begun, report = output.partition("Suite:")
    if exit_code < 0:
        return "crashed", (f"the tool was ended by signal {-exit_code}", *_last_line(output))
    if not begun or "Run Summary:" not in report:
        return "crashed", ("the tool gave up before the test", *_last_line(before))
    report = report.partition("Run Summary:")[0]
    if ended := _PASSED.search(report):
        report = report[: ended.end()]
    if "FAILED" in report:
        return "failed", _failures(report)
    if found := _SKIPPED.search(report):
        return "skipped", (found[1].rstrip("."),)
    if not _SENT.search(report):
        return "skipped", ("the test did nothing, and gave no reason",)
    return "passed", ()


def _failures(report: str) -> tuple[str, ...]:
    """Return the failures: commands with an unexpected answer, then assertions, each once."""
    commands = _FAILED_COMMAND.findall(report)
    assertions = [f"{place}: {text.strip()}" for place, text in _ASSERTION.findall(report)]
    found = list(dict.fromkeys(commands)) + list(dict.fromkeys(assertions))
    more = len(found) - _MOST_REASONS
    return (*found[:_MOST_REASONS], *([f"and {more} more"] if more > 0 else []))


def _last_line(text: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return tuple(lines[-1:])
