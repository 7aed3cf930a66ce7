"""Media are made when a disk is added, never when one that was there is opened again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vscsihba.errors import HostError, UsageError, VscsihbaError
from vscsihba.handlers.stack import build

MiB = 1 << 20

Document = dict[str, Any]


def file(folder: Path) -> Document:
    return {"handler": "file", "path": str(folder / "disk"), "size": "1MiB"}


def created_file(folder: Path) -> Document:
    return {**file(folder), "create": True}


def copied_file(folder: Path) -> Document:
    return {"handler": "file", "path": str(folder / "disk"), "copy_of": str(folder / "base")}


def cow(folder: Path) -> Document:
    return {"handler": "cow", "path": str(folder / "disk"), "create": True, "next": str(folder / "base")}


def snapshot(folder: Path) -> Document:
    return {"handler": "snapshot", "path": str(folder / "disk"), "create": True, "next": str(folder / "base")}


def mirror(folder: Path) -> Document:
    return {"handler": "mirror", "path": str(folder / "disk"), "create": True, "legs": [str(folder / "base")]}


def encrypt(folder: Path) -> Document:
    key = folder / "key"
    key.write_text("secret")
    key.chmod(0o600)
    kdf = {"kdf": "pbkdf2", "kdf_time": 1}
    below = {"handler": "file", "path": str(folder / "base")}
    return {"handler": "encrypt", "key_file": str(key), "create": True, **kdf, "next": below}


def leg(folder: Path) -> Document:
    return {"handler": "split", "legs": [file(folder), str(folder / "base")]}


MADE = (file, created_file, copied_file, cow, snapshot, mirror, encrypt, leg)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.write_bytes(bytes(32 * MiB))
    return tmp_path


@pytest.mark.parametrize("document", MADE)
def test_a_medium_is_made_only_where_that_is_allowed(
    base: Path, document: Callable[[Path], Document]
) -> None:
    wanted = document(base)
    before = sorted(base.iterdir())
    if document not in (encrypt, leg):  # these open the layers below to know
        with pytest.raises(VscsihbaError, match="only adding the LUN makes one"):
            build(wanted, make=False).check()
    with pytest.raises(VscsihbaError, match=r"only adding the LUN makes one; .*remove the LUN and add it ag"):
        build(wanted, make=False).open()
    assert sorted(base.iterdir()) == before
    assert (base / "base").read_bytes() == bytes(32 * MiB)
    with build(wanted):
        pass
    with build(wanted, make=False):
        pass


@pytest.mark.parametrize("document", [file, created_file, copied_file, cow, leg])
def test_a_medium_that_is_lost_later_is_not_made_by_the_same_stack(
    base: Path, document: Callable[[Path], Document]
) -> None:
    stack = build(document(base))
    with stack:
        pass
    (base / "disk").unlink()
    with pytest.raises(UsageError, match="only adding the LUN makes one"):
        stack.open()
    assert not (base / "disk").exists()


def test_a_leg_that_is_lost_is_not_made_when_the_mirror_tries_it_again(base: Path) -> None:
    legs = [str(base / "base"), {**file(base), "size": "32MiB"}]
    document = {"handler": "mirror", "path": str(base / "state"), "create": True, "retry": 0.01, "legs": legs}
    with build(document):
        pass
    (base / "disk").unlink()
    with build(document, make=False) as disk:
        disk.write(0, [memoryview(bytes(512))])
        disk.flush()
    assert not (base / "disk").exists()


def test_a_file_that_is_smaller_is_enlarged_only_where_that_is_allowed(base: Path) -> None:
    wanted = {**file(base), "size": "64MiB", "path": str(base / "base")}
    with build(wanted, make=False) as disk:
        assert disk.geometry.size == 32 * MiB
    assert (base / "base").stat().st_size == 32 * MiB
    with build(wanted) as disk:
        assert disk.geometry.size == 64 * MiB


def test_another_base_is_taken_for_the_right_one_only_where_that_is_allowed(base: Path) -> None:
    with build(cow(base)):
        pass
    (base / "base").write_bytes(b"\xa5" * 32 * MiB)
    wanted = {**cow(base), "rebase": True}
    with pytest.raises(HostError, match="its base has changed"):
        build(wanted, make=False).open()
    with build(wanted):
        pass
    with build(cow(base), make=False):
        pass
