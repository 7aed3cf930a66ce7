"""The Debian package without a build: its lists agree with pyproject.toml."""

import re
import tomllib

from publish.deb import VENDORED, changelog
from publish.dist import TREE

DEBIAN = TREE / "packaging" / "debian"
PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[<>=\[]", requirement)[0]


def test_every_dependency_is_brought_along_or_is_a_package_of_debian() -> None:
    brought = set(VENDORED)
    assert brought <= set(PROJECT["dependencies"])
    control = (DEBIAN / "control").read_text()
    for requirement in set(PROJECT["dependencies"]) - brought:
        assert f"python3-{name_of(requirement)}" in control.partition("Package: ")[2], requirement
    rules = (DEBIAN / "rules").read_text()
    for requirement in brought:
        assert name_of(requirement) in rules


def test_the_changelog_has_the_version_and_a_date() -> None:
    assert re.fullmatch(
        r"vscsihba \(1\.2\.3\+4\) unstable; urgency=medium\n\n  \* .+\n\n"
        r" -- .+ <.+>  Tue, 14 Nov 2023 22:13:20 \+0000\n",
        changelog("1.2.3+4", 1_700_000_000),
    )


def test_every_file_that_the_package_lists_is_in_the_tree() -> None:
    for name in ("docs", "examples"):
        for line in (DEBIAN / f"vscsihba.{name}").read_text().split():
            assert (TREE / line).exists()
    for line in (DEBIAN / "vscsihba.install").read_text().splitlines():
        assert (DEBIAN / line.split()[0].removeprefix("debian/")).exists()


def test_a_purge_removes_the_state_that_the_programs_keep() -> None:
    purge = (DEBIAN / "vscsihba.postrm").read_text()
    for path in re.findall(
        r"^\| `(/(?:etc|var/lib)/vscsihba/[^`]+)`", (TREE / "docs/daemon.md").read_text(), re.MULTILINE
    ):
        assert path.removesuffix("/") in purge, path
