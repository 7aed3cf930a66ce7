"""The model test for stacks of three layers: a file, and any two filters on it."""

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from tests.handlers.encrypt.test_encrypt import quick
from tests.handlers.places import MEMORY_DIRECTORY
from vscsihba.handlers.stack import Document
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests

FILTERS = ["cow", "cache", "encrypt", "offset", "snapshot", "log"]
MARGIN = 128 * KIB


class StackModel(DiskModel):
    """A file with two filters on it."""

    scratch = MEMORY_DIRECTORY
    grows_with_zeroes = False
    above = below = "log"

    def prepare(self, directory: Path) -> bytearray:
        room = (17 << 20) * [self.above, self.below].count("encrypt") + MARGIN * 4 + self.size
        with (directory / "disk.img").open("wb") as file:
            file.truncate(room)
        self.opened = False
        return bytearray(0)

    def document(self, directory: Path) -> Document:
        below = self.layer(directory, self.below, "0", str(directory / "disk.img"))
        return self.layer(directory, self.above, "1", below)

    def layer(self, directory: Path, name: str, number: str, below: Document) -> Document:
        every: dict[str, dict[str, Any]] = {
            "cow": {"path": str(directory / f"{number}.cow"), "create": True},
            "snapshot": {"path": str(directory / f"{number}.set"), "create": True},
            "cache": {"mode": "write-back", "size": "64KiB"},
            "offset": {"offset": MARGIN},
            "encrypt": quick(directory, create=True),
            "log": {},
        }
        return {**every[name], "handler": name, "next": below}

    def open(self) -> None:
        super().open()
        if not self.opened:
            # Whatever the layers make of zeroes below is what there is.
            self.opened = True
            self.resizes = self.resizable()
            self.expected = bytearray(self.disk.geometry.size)
            self.disk.read(0, [memoryview(self.expected)])

    def resizable(self) -> bool:
        """A window has a fixed size, and so has everything that asks it for another one."""
        for name in (self.above, self.below):
            if name == "offset":
                return False
            if name in ("cow", "snapshot"):
                return True
        return True


def pairs() -> list[tuple[str, str]]:
    # A container is only made on zeroes, and a new one reads as noise.
    return [pair for pair in itertools.product(FILTERS, FILTERS) if pair != ("encrypt", "encrypt")]


@pytest.mark.parametrize(("above", "below"), pairs())
def test_stack(above: str, below: str) -> None:
    examples = int(os.environ.get("STACK_EXAMPLES", "1"))
    model = type("Model", (StackModel,), {"above": above, "below": below})
    as_tests(model, examples=examples)("runTest").runTest()
