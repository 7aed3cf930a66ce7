"""The lists of pyproject.toml, held against the tree: a file that is not listed does not reach a user."""

import fnmatch
import tomllib
from pathlib import Path

TOP = Path(__file__).parents[1]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def folders() -> list[Path]:
    """Return the folder of every package, those that are linked into `vscsihba` included."""
    roots = [TOP / "vscsihba", *(path for path in (TOP / "vscsihba").iterdir() if path.is_symlink())]
    return [file.parent for root in roots for file in root.rglob("__init__.py")]


def name_of(folder: Path) -> str:
    return ".".join(folder.relative_to(TOP).parts)


def test_every_package_is_listed() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(name_of(folder) for folder in folders())


def test_every_file_that_is_no_module_is_listed() -> None:
    for folder in folders():
        patterns = SETUPTOOLS["package-data"].get(name_of(folder), [])
        for file in folder.iterdir():
            if file.is_file() and file.suffix not in {".py", ".pyc"}:
                assert any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns), file


def test_every_pattern_of_files_is_good_for_something() -> None:
    for package, patterns in SETUPTOOLS["package-data"].items():
        for pattern in patterns:
            assert list(TOP.joinpath(*package.split(".")).glob(pattern)), f"{package}: {pattern}"


def test_every_program_is_there() -> None:
    for name, place in PROJECT["project"]["scripts"].items():
        module, _, function = place.partition(":")
        path = TOP.joinpath(*module.split(".")).with_suffix(".py")
        assert f"def {function}(" in path.read_text(), name
