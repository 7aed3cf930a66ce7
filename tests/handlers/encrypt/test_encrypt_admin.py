from pathlib import Path

import pytest

from tests.handlers.encrypt.test_encrypt import CHEAP as CHEAP_OPTIONS
from tests.handlers.encrypt.test_encrypt import SECRET, empty, needs_cryptsetup, quick, run
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.encrypt import luks
from vscsihba.handlers.encrypt.admin import add_key, keys, remove_key
from vscsihba.handlers.encrypt.crypto import new_kdf
from vscsihba.handlers.encrypt.luks2 import Luks2
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import read, write

__all__ = ["empty"]

CHEAP = new_kdf(argon2=False, time=0, memory=0)


@pytest.fixture(params=[1, 2])
def container(empty: Path, request: pytest.FixtureRequest) -> Path:
    with build(quick(empty, luks=request.param)) as disk:
        write(disk, 0, b"kept")
    return empty


def image(container: Path) -> str:
    return str(container / "disk.img")


def opens(container: Path, secret: bytes) -> bool:
    (container / "secret").write_bytes(secret)
    try:
        with build(quick(container, create=False)) as disk:
            return read(disk, 0, 4) == b"kept"
    except UsageError:
        return False


def test_keys_are_added_and_removed(container: Path) -> None:
    with build(image(container)) as disk:
        assert keys(disk) == [0]
        assert add_key(disk, SECRET, b"second", CHEAP) == 1
        assert add_key(disk, b"second", b"third", CHEAP) == 2
    assert opens(container, SECRET)
    assert opens(container, b"third")
    with build(image(container)) as disk:
        remove_key(disk, 0)
        assert keys(disk) == [1, 2]
        assert add_key(disk, b"third", b"fourth", CHEAP) == 0
    assert not opens(container, SECRET)
    for secret in (b"second", b"third", b"fourth"):
        assert opens(container, secret)


def test_all_slots_can_be_used_and_no_more(empty: Path) -> None:
    with build(quick(empty, luks=1)) as disk:
        write(disk, 0, b"kept")
    with build(image(empty)) as disk:
        for number in range(1, 8):
            assert add_key(disk, SECRET, b"%d" % number, CHEAP) == number
        with pytest.raises(UsageError, match="all eight key slots"):
            add_key(disk, SECRET, b"one more", CHEAP)
        remove_key(disk, 5)
        assert add_key(disk, SECRET, b"one more", CHEAP) == 5
    assert opens(empty, b"one more")


def test_all_room_can_be_used_and_no_more(empty: Path) -> None:
    with build(quick(empty)) as disk:
        write(disk, 0, b"kept")
    with build(image(empty)) as disk:
        header = luks.find(disk)
        assert isinstance(header, Luks2)
        header.json["config"]["keyslots_size"] = str(3 * 258048)
        header.write(disk)
        for number in (1, 2):
            assert add_key(disk, SECRET, b"%d" % number, CHEAP) == number
        with pytest.raises(UsageError, match="all key slots are in use"):
            add_key(disk, SECRET, b"one more", CHEAP)
        remove_key(disk, 1)
        assert add_key(disk, SECRET, b"one more", CHEAP) == 1
    assert opens(empty, b"one more")


@pytest.mark.parametrize("wrong", ["secret", "slot", "last"])
def test_what_is_refused(container: Path, wrong: str) -> None:
    with build(image(container)) as disk:
        if wrong == "secret":
            with pytest.raises(UsageError, match="opens no key"):
                add_key(disk, b"wrong", b"second", CHEAP)
        elif wrong == "slot":
            with pytest.raises(UsageError, match=r"slot 7 holds no key; slots with a key: \[0\]"):
                remove_key(disk, 7)
        else:
            with pytest.raises(UsageError, match="the only key"):
                remove_key(disk, 0)
    assert opens(container, SECRET)


def test_what_a_removed_key_was_sealed_in_is_destroyed(container: Path) -> None:
    with build(image(container)) as disk:
        add_key(disk, SECRET, b"second", CHEAP)
        header = luks.find(disk)
        assert header is not None
        if isinstance(header, Luks2):
            area = header.json["keyslots"]["0"]["area"]
            start, size = int(area["offset"]), int(area["size"])
        else:
            start, size = header.slots[0].place * 512, header.key_size * 4000
        before = read(disk, start, size)
        remove_key(disk, 0)
        after = read(disk, start, size)
    kept = [at for at in range(0, size - 511, 512) if before[at : at + 512] == after[at : at + 512]]
    assert all(before[at : at + 512] == bytes(512) for at in kept)  # behind the stripes
    assert len(kept) <= 8


@needs_cryptsetup
def test_only_keys_that_open_the_data_count(empty: Path) -> None:
    key, second = empty / "key", empty / "second"
    key.write_bytes(SECRET)
    second.write_bytes(b"second")
    with build(quick(empty)) as disk:
        write(disk, 0, b"kept")
    run(
        "cryptsetup", "luksAddKey", "--unbound", "--key-size", "256", "-q", "--key-file", key,
        *CHEAP_OPTIONS, image(empty), second,
    )  # fmt: skip
    with build(image(empty)) as disk:
        assert keys(disk) == [0, 1]
        with pytest.raises(UsageError, match="the only key that opens the data"):
            remove_key(disk, 0)
        with pytest.raises(UsageError, match="opens no key"):
            add_key(disk, b"second", b"third", CHEAP)
        assert add_key(disk, SECRET, b"third", CHEAP) == 2
        remove_key(disk, 1)
        remove_key(disk, 0)
    assert opens(empty, b"third")


def test_argon2_is_not_for_luks1(empty: Path) -> None:
    with build(quick(empty, luks=1)):
        pass
    with build(image(empty)) as disk, pytest.raises(UsageError, match="LUKS1 has no argon2"):
        add_key(disk, SECRET, b"x", new_kdf(argon2=True, time=1, memory=1 << 16))


def test_a_disk_without_a_container(empty: Path) -> None:
    with build(image(empty)) as disk, pytest.raises(HostError, match="is not a LUKS container"):
        keys(disk)
