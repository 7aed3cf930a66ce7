"""The wheel alone: nothing of the source tree is used, and every program of it starts."""

import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys
from pathlib import Path

import vscsihba


def test_the_package_is_the_installed_one(installed: Path) -> None:
    assert Path(sys.prefix) == installed
    assert Path(vscsihba.__file__).is_relative_to(installed / "lib")


def test_it_is_no_editable_install(installed: Path) -> None:
    files = importlib.metadata.files("vscsihba") or []
    assert not [file for file in files if "__editable__" in file.name]
    assert [file for file in files if file.name == "py.typed"]


def test_every_program_starts(installed: Path) -> None:
    programs = [
        point.name
        for point in importlib.metadata.entry_points(group="console_scripts")
        if point.value.startswith("vscsihba.")
    ]
    assert {"vscsihba", "vscsitarget"} <= set(programs)
    for name in programs:
        done = subprocess.run(
            [installed / "bin" / name, "--help"], capture_output=True, text=True, check=False, cwd="/"
        )
        assert (done.returncode, done.stderr) == (0, ""), name
        assert name in done.stdout


def test_the_programs_are_on_the_path(installed: Path) -> None:
    for name in ("vscsihba", "vscsitarget"):
        assert (Path("/usr/local/bin") / name).resolve() == installed / "bin" / name


def test_every_module_can_be_imported() -> None:
    """A package that pyproject.toml does not list is missing here, and only here."""
    names = [module.name for module in pkgutil.walk_packages(vscsihba.__path__, "vscsihba.")]
    assert {"vscsihba.handlers.file.handler", "vscsihba.configfs.lio", "vscsihba.engine.target"} <= set(names)
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
