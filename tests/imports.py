"""Every import of the project, as data: who imports what, and where. Reads source, runs none."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TOP = Path(__file__).parents[1]
PACKAGE = TOP / "vscsihba"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name.

    Attributes:
        importer: The module that imports, dotted.
        imported: The imported name, dotted: a module, or a name inside one.
        place: ``file:line``.
    """

    importer: str
    imported: str
    place: str


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name, through the links too."""
    found = {}
    for entry in sorted(PACKAGE.iterdir()):
        # rglob does not follow links below its root, and vscsihba.handlers is one: so each is a root.
        for path in sorted(entry.rglob("*.py")) if entry.is_dir() else [entry]:
            if path.suffix == ".py":
                parts = path.relative_to(TOP).with_suffix("").parts
                found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(module: str, path: Path) -> Iterator[Import]:
    """Yield the imports of a module, anywhere in the file; ``from a import b`` as ``a.b``."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(module, name, f"{path.relative_to(TOP)}:{node.lineno}")


@cache
def all_imports() -> tuple[Import, ...]:
    """Return every import of every module of the package."""
    return tuple(found for module, path in modules().items() for found in imports(module, path))


def imports_of_tests() -> Iterator[Import]:
    """Yield every import of the tests."""
    for path in sorted((TOP / "tests").rglob("*.py")):
        yield from imports(".".join(path.relative_to(TOP).with_suffix("").parts), path)


def room(dotted: str) -> str:
    """Return the layer that a dotted name of ours belongs to: ``vscsihba.scsi.cdb`` is in ``scsi``.

    ``python -m vscsihba`` belongs to the package's front, which has no name.
    """
    return [*dotted.split("."), ""][1].removeprefix("__main__")
