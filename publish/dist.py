"""The sdist and the wheel for PyPI: built twice the same, and checked.

``python -m publish.dist [FOLDER]`` (``./dev dist``) writes both into dist/. The wheel is built from the
sdist, so that a file that is missing in either is noticed. All times in them are that of the last commit, or
``SOURCE_DATE_EPOCH`` if it is set. Knows setuptools by way of `build`, and no index of packages.
"""

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vscsihba import __version__

TREE: Final = Path(__file__).resolve().parents[1]


class DistError(Exception):
    """A distribution that cannot be published; the message says why."""


def epoch() -> int:
    """Return the time of the distributions in seconds: ``SOURCE_DATE_EPOCH``, else that of the last commit.

    Raises:
        DistError: Neither is known.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    words = ["git", "-C", str(TREE), "log", "-1", "--format=%ct"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DistError("no git history and no SOURCE_DATE_EPOCH: the time of the distributions is unknown")
    return int(done.stdout)


def normalize(sdist: Path, time: int) -> None:
    """Write an sdist anew with sorted members, one time, no owner, and modes 644 and 755.

    setuptools keeps the owner and the times of the files in the tree, and the time of the build.
    """
    with tarfile.open(sdist) as source:
        members = sorted(source.getmembers(), key=lambda member: member.name)
        new = sdist.with_suffix(".new")
        with (
            new.open("wb") as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=time) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as target,
        ):
            for member in members:
                executable = member.isdir() or member.mode & 0o100
                member.mode = 0o755 if executable else 0o644
                member.mtime = time
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.pax_headers = {}
                target.addfile(member, source.extractfile(member) if member.isfile() else None)
    new.replace(sdist)


def build(folder: Path, *, isolated: bool = True) -> list[Path]:
    """Build the sdist, then the wheel from it, into `folder`; return both.

    Args:
        folder: Folder of the results.
        isolated: Build with the setuptools that pyproject.toml asks for, fetched for this purpose; otherwise
            with that of this environment.

    Raises:
        DistError: The build failed.
    """
    time = epoch()
    with tempfile.TemporaryDirectory(prefix="vscsihba-dist-") as name:
        work = Path(name)
        copy = work / "tree"
        copy_tree(copy)
        sdist = _built(copy, "sdist", work / "out", time, isolated=isolated)
        normalize(sdist, time)
        unpacked = work / "unpacked"
        unpacked.mkdir()
        subprocess.run(["tar", "-xf", sdist, "-C", unpacked], check=True)
        (source,) = unpacked.iterdir()
        wheel = _built(source, "wheel", work / "out", time, isolated=isolated)
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(path, folder / path.name)) for path in (sdist, wheel)]


def copy_tree(target: Path) -> None:
    """Copy the files that git tracks: leftovers of a build in the tree reach no distribution.

    Raises:
        DistError: There is no git history.
    """
    words = ["git", "-C", str(TREE), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode:
        raise DistError("distributions are built from a git tree")
    for name in filter(None, done.stdout.decode().split("\0")):
        source, copy = TREE / name, target / name
        if source.is_symlink() or source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def _built(source: Path, kind: str, folder: Path, time: int, *, isolated: bool) -> Path:
    """Build one distribution and return it."""
    words = [sys.executable, "-m", "build", f"--{kind}", "--outdir", str(folder), str(source)]
    if not isolated:
        words[3:3] = ["--no-isolation", "--skip-dependency-check"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(time)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, umask=0o022, env=environment)
    if done.returncode:
        raise DistError(f"{kind}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    pattern = "*.tar.gz" if kind == "sdist" else "*.whl"
    (made,) = folder.glob(pattern)
    return made


def check(paths: Sequence[Path]) -> None:
    """Check the metadata and the description of distributions, as PyPI does.

    Raises:
        DistError: Something is wrong with one.
    """
    words = [sys.executable, "-m", "twine", "check", "--strict", *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DistError(done.stdout + done.stderr)


def check_equal(paths: Sequence[Path], others: Sequence[Path]) -> None:
    """Compare the distributions of two builds.

    Raises:
        DistError: One differs.
    """
    for path, other in zip(paths, others, strict=True):
        if path.read_bytes() != other.read_bytes():
            raise DistError(f"{path.name} differs between two builds")


def check_tag(tag: str) -> None:
    """Check that a tag of a release, the version and the changelog agree.

    Raises:
        DistError: They do not.
    """
    if tag != f"v{__version__}":
        raise DistError(f"the tag is {tag}, and the version {__version__}")
    heading = rf"(?m)^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$"
    if not re.search(heading, (TREE / "CHANGELOG.md").read_text()):
        raise DistError(f"CHANGELOG.md has no section of {__version__} with a date")


def main(arguments: Sequence[str]) -> int:
    """Build both distributions twice, compare, check, and print their paths."""
    parser = argparse.ArgumentParser(prog="./dev dist", description="Build the sdist and the wheel.")
    parser.add_argument("folder", nargs="?", type=Path, default=TREE / "dist")
    parser.add_argument("--tag", help="the tag of a release, which has to agree with version and changelog")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    try:
        if options.tag is not None:
            check_tag(options.tag)
        with tempfile.TemporaryDirectory(prefix="vscsihba-again-") as again:
            made = build(folder)
            check_equal(made, build(Path(again)))
        check(made)
    except DistError as error:
        print(f"dist: {error}", file=sys.stderr)
        return 1
    for path in made:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
