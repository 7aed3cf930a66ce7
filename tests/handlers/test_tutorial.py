"""The tutorial's code, copied from its page and run."""

import re
from pathlib import Path

import pytest

from tests.engine.rig import Rig
from tests.handlers.model import DiskModel, as_tests, read
from tests.handlers.pages import from_tutorial
from vscsihba.errors import ConfigError
from vscsihba.handlers.stack import Document, build


def save(directory: Path, name: str) -> str:
    return str(from_tutorial(directory, name))


def test_the_first_is_as_short_as_it_says(tmp_path: Path) -> None:
    lines = [line for line in Path(save(tmp_path, "ram")).read_text().splitlines() if line]
    assert len(lines) <= 20


def test_clock(tmp_path: Path) -> None:
    with build({"handler": save(tmp_path, "clock"), "format": "%H:%M"}) as disk:
        assert re.fullmatch(r"\d\d:\d\d", read(disk, 0, 512).decode().strip())
        assert disk.geometry.size == 1 << 20
        assert disk.capabilities.read_only


def test_the_message_that_it_quotes(tmp_path: Path) -> None:
    path = save(tmp_path, "clock")
    with pytest.raises(ConfigError, match=r"clock\.py has no option 'szie'; did you mean \"size\"\?"):
        build({"handler": path, "szie": "1MiB"})


def test_busy(tmp_path: Path) -> None:
    with Rig({"handler": save(tmp_path, "busy")}) as rig:
        assert rig.read(0, 1).status == 0x08


class RamModel(DiskModel):
    forgets = True
    resizes = False

    def document(self, directory: Path) -> Document:
        return {"handler": "offset", "length": self.size, "next": {"handler": save(directory, "ram")}}


class InvertedModel(DiskModel):
    resizes = False

    def prepare(self, directory: Path) -> bytearray:
        (directory / "a.img").write_bytes(b"\xff" * self.size)
        return bytearray(self.size)

    def document(self, directory: Path) -> Document:
        return {"handler": save(directory, "inverted"), "next": str(directory / "a.img")}


TestRam = as_tests(RamModel)
TestInverted = as_tests(InvertedModel)
