"""A plain file."""

from pathlib import Path

from tests.bench.stacks.stack import Stack, bare_file, image
from vscsihba.handlers.stack import Document


def _make(folder: Path) -> Document:
    return {"handler": "file", "path": str(image(folder / "disk.img"))}


STACKS = (Stack("file", _make, bare_file, "1 preadv or pwritev"),)
