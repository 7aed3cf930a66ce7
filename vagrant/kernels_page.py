"""docs/kernels.md: the tests that were run on each kernel, and their results.

`python -m vagrant.kernels_page` writes the page from the files that test.sh has put into build/vm-results.
Knows JUnit's files and the page; not how a kernel was booted.
"""

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vagrant.runner.kernels import version_key

TREE = Path(__file__).resolve().parents[1]
RESULTS, PAGE = TREE / "build/vm-results", TREE / "docs/kernels.md"
PREFIX = "vm-tests-"
KINDS = ("passed", "failed", "skipped")

INTRODUCTION = """\
# Kernels

Results of the tests that need a kernel. The first two commands run them, and the last one writes this page:

    ./dev test --kernel 6.1 --kernel 6.12 tests/vm
    sudo vagrant/ci
    .venv/bin/python -m vagrant.kernels_page

A column is a kernel, a row is a file of tests. An empty cell means that the file was not run on that kernel.
A release without a suffix, such as 6.1.176, is User-Mode Linux in the sandbox; Debian's kernels run in QEMU
and in Vagrant's machines.
"""


@dataclass(frozen=True)
class Case:
    """One test and its result."""

    file: str
    name: str
    kind: str
    """One of KINDS."""
    reason: str = ""
    """The reason why it was skipped."""


@dataclass
class Run:
    """The tests that were run on one kernel."""

    release: str
    date: str = ""
    """The day of the newest result."""
    cases: dict[tuple[str, str], Case] = field(default_factory=dict)
    """By file and name; of a test that was run several times, the newest result."""

    def summary(self, file: str) -> str:
        """Return the number of results of each kind in a file, as a text; empty if no test was run."""
        counts = Counter(case.kind for case in self.cases.values() if case.file == file)
        return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])


def read_case(element: ET.Element) -> Case:
    """Return a test case of a JUnit file."""
    module = element.get("classname", "")
    skipped = element.find("skipped")
    if skipped is not None:
        kind, reason = "skipped", skipped.get("message", "")
    else:
        broken = any(element.find(tag) is not None for tag in ("failure", "error"))
        kind, reason = ("failed" if broken else "passed"), ""
    return Case(module.replace(".", "/") + ".py", element.get("name", ""), kind, reason)


def read_runs(files: Iterable[Path]) -> list[Run]:
    """Return the runs that are in JUnit files, by kernel; the release is in a file's name."""
    suites = [
        (suite.get("timestamp", ""), path.stem.removeprefix(PREFIX), suite)
        for path in files
        for suite in ET.parse(path).getroot().iter("testsuite")  # noqa: S314 - written by our own tests
    ]
    runs: dict[str, Run] = {}
    for time, release, suite in sorted(suites, key=lambda entry: entry[:2]):
        run = runs.setdefault(release, Run(release))
        run.date = time[:10]
        for case in map(read_case, suite.iter("testcase")):
            run.cases[case.file, case.name] = case
    return sorted(runs.values(), key=lambda run: version_key(run.release))


def row(cells: Iterable[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def reasons(runs: Sequence[Run]) -> list[str]:
    """Return a line for each reason of skipped tests."""
    files_by_reason: dict[str, set[str]] = {}
    for run in runs:
        for case in run.cases.values():
            if case.kind == "skipped":
                files_by_reason.setdefault(case.reason, set()).add(f"`{case.file}`")
    return [f"- {reason}: {', '.join(sorted(files))}" for reason, files in sorted(files_by_reason.items())]


def page(runs: Sequence[Run]) -> str:
    """Return the whole page."""
    files = sorted({case.file for run in runs for case in run.cases.values()})
    table = [
        row(["tests", *(f"Linux {run.release}" for run in runs)]),
        row(["---"] * (len(runs) + 1)),
        row(["day", *(run.date for run in runs)]),
        *(row([f"`{file}`", *(run.summary(file) for run in runs)]) for file in files),
    ]
    skipped = reasons(runs)
    section = ["", "## Skipped", "", *skipped] if skipped else []
    return "\n".join([INTRODUCTION, *table, *section]) + "\n"


def main(results: Path = RESULTS, where: Path = PAGE) -> int:
    """Write the page; return 1 if there are no results."""
    runs = read_runs(sorted(results.rglob(f"{PREFIX}*.xml")))
    if not runs:
        sys.stderr.write(f"kernels_page: no {PREFIX}*.xml in {results}: run ./dev test tests/vm first\n")
        return 1
    where.write_text(page(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
