"""The layer picture of ARCHITECTURE.md, held against every import of the package."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.imports import PACKAGE, TOP, Import, all_imports, imports, imports_of_tests, modules, room

ALONE = {
    "rtslib": "configfs",
    "rtslib_fb": "configfs",
    "pyudev": "configfs",
    "configshell": "shell",
    "configshell_fb": "shell",
}
"""Libraries that one layer wraps, so that their types and failures stay in it."""

UNKNOWN = {
    "vscsihba.engine.serving": ("vscsihba.engine.owning", "vscsihba.configfs", "vscsihba.control"),
    "vscsihba.engine.owning": ("vscsihba.engine.target", "vscsihba.engine.process", "vscsihba.engine.verbs"),
}
"""Parts of the package that a folder inside a layer must not import."""

CARRIERS = ("transport", "tcmu", "loopback")
"""They carry commands and must not know what one means, nor who stores the bytes."""


def picture() -> str:
    """Return the line of ARCHITECTURE.md that draws the layers."""
    (drawn,) = re.findall(r"^ +(errors .+<-.+)$", (TOP / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    return str(drawn)


def read_picture(drawn: str) -> dict[str, tuple[int, int, int]]:
    """Return for each layer: its place from the left, its pair of braces (0: none), its branch in them."""
    places: dict[str, tuple[int, int, int]] = {}
    braces = inside = branch = 0
    for word in drawn.split():
        if word == "{":
            braces += 1
            inside, branch = braces, 0
        elif word == "}":
            inside = branch = 0
        elif word == "|":
            branch += 1
        elif word != "<-":
            places[word] = (len(places), inside, branch)
    return places


def may_import(places: dict[str, tuple[int, int, int]], importer: str, imported: str) -> bool:
    """Tell whether the picture allows it: only what stands to the left, and no sibling in braces."""
    if importer == imported or importer == "":  # within a layer; the package's front re-exports anything
        return True
    if importer not in places or imported not in places:
        return False
    own, other = places[importer], places[imported]
    siblings = own[1] == other[1] != 0 and own[2] != other[2]
    return other[0] < own[0] and not siblings


VERSION = "vscsihba.__version__"
"""The only thing of the package's front, and not an import of a layer."""


def ours(one: Import) -> bool:
    return one.imported.split(".")[0] == "vscsihba" and one.imported != VERSION


def show(broken: list[Import], rule: str) -> None:
    lines = [f"{one.place}: {one.importer} imports {one.imported}" for one in broken]
    assert not broken, "\n".join([rule, *lines])


def test_imports_follow_the_picture() -> None:
    places = read_picture(picture())
    broken = [
        one
        for one in all_imports()
        if ours(one) and not may_import(places, room(one.importer), room(one.imported))
    ]
    show(broken, f"each layer imports only what stands to its left:\n{picture()}")


def test_every_module_has_its_place_in_the_picture() -> None:
    assert {room(module) for module in modules()} - {""} <= set(read_picture(picture()))


def test_carriers_know_nothing_of_scsi_and_handlers() -> None:
    broken = [
        one
        for one in all_imports()
        if room(one.importer) in CARRIERS and ours(one) and room(one.imported) in ("scsi", "handlers")
    ]
    show(broken, f"{', '.join(CARRIERS)} know rings, not SCSI")


def test_commands_of_every_device_type_know_nothing_of_disks() -> None:
    special = ("vscsihba.scsi.block.", "vscsihba.scsi.copy.")
    broken = [
        one
        for one in all_imports()
        if one.importer.startswith("vscsihba.scsi.commands.") and f"{one.imported}.".startswith(special)
    ]
    show(broken, "what only disks have belongs to vscsihba.scsi.block")


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("folder", UNKNOWN)
def test_folder_inside_a_layer_knows_nothing_of_others(folder: str) -> None:
    inside = [one for one in all_imports() if within(one.importer, folder)]
    assert inside
    broken = [one for one in inside if any(within(one.imported, package) for package in UNKNOWN[folder])]
    show(broken, f"{folder} imports none of {', '.join(UNKNOWN[folder])}")


def test_linked_folders_are_never_imported_by_themselves() -> None:
    everything = (*all_imports(), *imports_of_tests())
    broken = [one for one in everything if one.imported.split(".")[0] in ("handlers", "configfs")]
    show(broken, "say vscsihba.handlers and vscsihba.configfs")


@pytest.mark.parametrize("library", ALONE)
def test_library_is_imported_in_one_layer(library: str) -> None:
    broken = [
        one
        for one in all_imports()
        if one.imported.split(".")[0] == library and room(one.importer) != ALONE[library]
    ]
    show(broken, f"only {ALONE[library]} imports {library}")


def test_nothing_is_imported_wholesale() -> None:
    show([one for one in all_imports() if one.imported.endswith(".*")], "name what you import")


def test_every_module_opens_with_a_caption() -> None:
    bare = [
        name for name, path in modules().items() if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert bare == []


def test_pyproject_names_every_package() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    packages = {module for module, path in modules().items() if path.name == "__init__.py"}
    assert set(project["tool"]["setuptools"]["packages"]) == packages


def test_folders_of_modules_are_packages() -> None:
    folders = {path.parent for path in modules().values()}
    assert all((folder / "__init__.py").exists() for folder in folders)
    assert PACKAGE in folders


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("scsi", "block", True),
        ("scsi", "scsi", True),
        ("units", "errors", True),
        ("errors", "units", False),
        ("scsi", "handlers", False),
        ("handlers", "scsi", False),
        ("engine", "handlers", True),
        ("cli", "shell", True),
        ("shell", "cli", False),
        ("loopback", "tcmu", True),
        ("tcmu", "loopback", False),
        ("engine", "cli", False),
        ("engine", "attic", False),
        ("", "cli", True),
        ("cli", "", False),
    ],
)
def test_picture_is_read_as_it_is_meant(importer: str, imported: str, *, allowed: bool) -> None:
    assert may_import(read_picture(picture()), importer, imported) == allowed


def test_every_kind_of_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.imports.TOP", tmp_path)
    path = tmp_path / "cdb.py"
    path.write_text("import a.b, c\nfrom d import e\ndef f():\n    from . import g\n    from ..h import *\n")
    listed = [(each.imported, each.place) for each in imports("vscsihba.scsi.cdb", path)]
    assert listed == [
        ("a.b", "cdb.py:1"),
        ("c", "cdb.py:1"),
        ("d.e", "cdb.py:2"),
        ("vscsihba.scsi.g", "cdb.py:4"),
        ("vscsihba.h.*", "cdb.py:5"),
    ]
