"""The tutorial's code, copied from its page and run."""

import re
from pathlib import Path

import pytest

from tests.handlers.model import DiskModel, as_tests, read
from tests.handlers.pages import PAGES
from vscsihba.errors import ConfigError
from vscsihba.handlers.stack import Document, build

CODE = re.findall(r"```python\n(.*?)```", (PAGES / "tutorial.md").read_text(), re.DOTALL)


def save(directory: Path, name: str) -> str:
    (code,) = [code for code in CODE if f'name = "{name}"' in code]
    path = directory / f"{name}.py"
    path.write_text(code)
    return str(path)


def test_the_first_is_as_short_as_it_says(tmp_path: Path) -> None:
    assert len(Path(save(tmp_path, "clock")).read_text().splitlines()) <= 20


def test_clock(tmp_path: Path) -> None:
    with build({"handler": save(tmp_path, "clock")}) as disk:
        assert read(disk, 0, 512).decode().strip().count(":") == 2
        assert disk.capabilities.read_only


def test_the_message_that_it_quotes(tmp_path: Path) -> None:
    path = save(tmp_path, "ram")
    with pytest.raises(ConfigError, match=r"ram\.py has no option 'szie'; did you mean \"size\"\?"):
        build({"handler": path, "szie": "1MiB"})


class RamModel(DiskModel):
    forgets = True
    resizes = False

    def document(self, directory: Path) -> Document:
        return {"handler": save(directory, "ram"), "size": self.size}


class InvertedModel(DiskModel):
    resizes = False

    def prepare(self, directory: Path) -> bytearray:
        (directory / "a.img").write_bytes(b"\xff" * self.size)
        return bytearray(self.size)

    def document(self, directory: Path) -> Document:
        return {"handler": save(directory, "inverted"), "next": str(directory / "a.img")}


TestRam = as_tests(RamModel)
TestInverted = as_tests(InvertedModel)
