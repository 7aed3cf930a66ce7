"""The tutorial's code, copied from its page and run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.rig import Rig
from tests.handlers.pages import from_tutorial
from vscsihba.errors import ConfigError
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import DiskModel, as_tests, read


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


TestRam = as_tests(RamModel)


def test_the_model_test_of_a_filter(tmp_path: Path) -> None:
    save(tmp_path, "inverted")
    save(tmp_path, "test_inverted")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_inverted.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
