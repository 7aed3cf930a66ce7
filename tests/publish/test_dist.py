"""The distributions: one version, the same bytes for the same tree. ``./dev dist`` builds both, twice."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

import vscsihba
from publish.dist import TREE, DistError, check_tag, epoch, normalize

PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())


def archive(path: Path, *, mode: int, time: int, names: list[str]) -> Path:
    """Make an sdist whose members have a mode and a time."""
    with tarfile.open(path, "w:gz") as made:
        for name in names:
            file = path.parent / name
            file.write_text(name)
            file.chmod(mode)
            os.utime(file, (time, time))
            made.add(file, f"vscsihba-1/{name}")
    return path


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "vscsihba.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", vscsihba.__version__)


def test_the_program_says_the_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vscsihba", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"vscsihba {vscsihba.__version__}\n"


def test_a_normalized_sdist_depends_on_nothing_but_the_content_of_its_files(tmp_path: Path) -> None:
    made = []
    for name, mode, time, names in (("one", 0o600, 1, ["a", "b"]), ("two", 0o664, 99, ["b", "a"])):
        (folder := tmp_path / name).mkdir()
        made.append(archive(folder / "x.tar.gz", mode=mode, time=time, names=names))
    assert made[0].read_bytes() != made[1].read_bytes()
    for each in made:
        normalize(each, 1_700_000_000)
    assert made[0].read_bytes() == made[1].read_bytes()
    with tarfile.open(made[0]) as archived:
        members = archived.getmembers()
    assert [(m.name, m.mode, m.mtime, m.uname) for m in members] == [
        ("vscsihba-1/a", 0o644, 1_700_000_000, ""),
        ("vscsihba-1/b", 0o644, 1_700_000_000, ""),
    ]


def test_executable_files_stay_executable(tmp_path: Path) -> None:
    made = archive(tmp_path / "x.tar.gz", mode=0o700, time=1, names=["run"])
    normalize(made, 5)
    with tarfile.open(made) as archived:
        assert archived.getmembers()[0].mode == 0o755


def test_the_time_of_the_environment_goes_before_that_of_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "77")
    assert epoch() == 77


def test_without_a_history_the_time_must_be_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setattr("publish.dist.TREE", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(DistError, match="SOURCE_DATE_EPOCH"):
        epoch()


def test_a_tag_agrees_with_version_and_changelog(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tag(f"v{vscsihba.__version__}")
    with pytest.raises(DistError, match=r"the tag is v9\.9\.9"):
        check_tag("v9.9.9")
    monkeypatch.setattr("publish.dist.__version__", "9.9.9")
    with pytest.raises(DistError, match=r"CHANGELOG.md has no section of 9\.9\.9"):
        check_tag("v9.9.9")


def test_everything_that_the_sdist_names_is_there() -> None:
    for line in (TREE / "MANIFEST.in").read_text().splitlines():
        kind, *names = line.split()
        if kind in {"include", "graft"}:
            for name in names:
                assert (TREE / name).exists(), name
