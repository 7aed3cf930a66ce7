import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.handlers.places import MEMORY_DIRECTORY, open_files
from vscsihba.block import Views
from vscsihba.errors import ConfigError, HostError, InUseError, UsageError
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.encrypt import luks
from vscsihba.handlers.encrypt.admin import add_key
from vscsihba.handlers.encrypt.crypto import new_kdf
from vscsihba.handlers.encrypt.handler import EncryptHandler
from vscsihba.handlers.encrypt.luks2 import Luks2
from vscsihba.handlers.encrypt.payload import Payload
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.shared import linux
from vscsihba.handlers.shared.rwlock import RWLock
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests, read, write

pytest.importorskip("cryptography")
pytest.importorskip("argon2")

MIB = 1 << 20
SECRET = b"correct horse"


def encrypt(directory: Path, **options: object) -> dict[str, object]:
    secret = directory / "secret"
    if not secret.exists():
        secret.write_bytes(SECRET + b"\n")
    return {
        "handler": "encrypt",
        "passphrase_file": str(secret),
        "create": True,
        "kdf_memory": "64KiB",
        "kdf_time": 1,
        **options,
        "next": str(directory / "disk.img"),
    }


def quick(directory: Path, **options: object) -> dict[str, object]:
    """The same with a key derivation that costs nothing."""
    return encrypt(directory, kdf="pbkdf2", kdf_time=0, **options)


class Luks2Model(DiskModel):
    scratch = MEMORY_DIRECTORY
    grows_with_zeroes = False
    header = 16 * MIB

    def prepare(self, directory: Path) -> bytearray:
        with (directory / "disk.img").open("wb") as file:
            file.truncate(self.header + self.size)
        with build(self.document(directory)) as disk:
            return bytearray(read(disk, 0, self.size))

    def document(self, directory: Path) -> Document:
        return quick(directory)


class Luks1Model(Luks2Model):
    header = 2 * MIB

    def document(self, directory: Path) -> Document:
        return quick(directory, luks=1)


class DiscardModel(Luks2Model):
    grows_with_zeroes = True

    def document(self, directory: Path) -> Document:
        return quick(directory, discard=True)


TestLuks2 = as_tests(Luks2Model, examples=4)
TestLuks1 = as_tests(Luks1Model, examples=4)
TestDiscard = as_tests(DiscardModel, examples=4)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(20 * MIB)
    return tmp_path


def stored(directory: Path) -> bytes:
    return (directory / "disk.img").read_bytes()


# What is below


def test_no_plaintext_gets_below(empty: Path) -> None:
    known = b"plaintext-" * 1000
    with build(quick(empty)) as disk:
        write(disk, 4096, known)
        disk.write_zeroes(64 * KIB, 64 * KIB, may_unmap=True)
        disk.write_zeroes(192 * KIB, 64 * KIB, may_unmap=False)
        write(disk, 5000, b"unaligned", fua=True)
    below = stored(empty)
    assert b"plaintext" not in below
    assert b"unaligned" not in below
    for start in (16 * MIB + 64 * KIB, 16 * MIB + 192 * KIB):
        for at in range(start, start + 64 * KIB, 512):
            assert any(below[at : at + 512])


def test_sectors_of_the_same_content_differ(empty: Path) -> None:
    with build(quick(empty)) as disk:
        write(disk, 0, b"x" * 8192)
    below = stored(empty)[16 * MIB :]
    assert below[:4096] != below[4096:8192]
    assert below[:16] != below[16:32]


def test_unmap_is_off_unless_asked_for(empty: Path) -> None:
    with build(quick(empty)) as disk:
        assert not disk.capabilities.unmap
        with pytest.raises(OSError, match="not switched on"):
            disk.unmap(0, 4096)
    with build(quick(empty, discard=True)) as disk:
        assert disk.capabilities.unmap_zeroes
        write(disk, 0, b"x" * 64 * KIB)
        before = (empty / "disk.img").stat().st_blocks
        disk.unmap(0, 64 * KIB)
        assert (empty / "disk.img").stat().st_blocks < before
        assert not any(read(disk, 0, 64 * KIB))
        write(disk, 64 * KIB, b"x" * 64 * KIB)
        before = (empty / "disk.img").stat().st_blocks
        disk.unmap(64 * KIB, 64 * KIB)
        assert (empty / "disk.img").stat().st_blocks < before


def test_zeroes_that_are_forced_on_are_flushed_after_an_unmap(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with build(quick(empty, discard=True)) as disk:
        flushed: list[int] = []
        monkeypatch.setattr(os, "fdatasync", flushed.append)
        handler = disk.next
        handler.write_zeroes(0, 64 * KIB, may_unmap=True)
        assert flushed == []
        handler.write_zeroes(0, 64 * KIB, may_unmap=True, fua=True)
        assert len(flushed) == 1
        monkeypatch.undo()


@pytest.mark.parametrize(("start", "end"), [(4096, 12288), (100, 300), (100, 9100), (8192, 12388)])
def test_an_unmap_of_any_range_zeroes_it_alone(empty: Path, start: int, end: int) -> None:
    with build(quick(empty, discard=True)) as disk:
        expected = bytearray(b"x" * 20480)
        write(disk, 0, bytes(expected))
        disk.next.unmap(start, end - start)
        expected[start:end] = bytes(end - start)
        assert read(disk, 0, 20480) == expected


def test_a_container_of_a_fixed_size_keeps_it(empty: Path) -> None:
    with build(quick(empty)) as disk:
        assert isinstance(disk.next, EncryptHandler)
        header = disk.next._header
        assert isinstance(header, Luks2)
    segment = {**header.json["segments"]["0"], "size": str(MIB)}
    with build(str(empty / "disk.img")) as below:
        replace(header, json={**header.json, "segments": {"0": segment}}, sequence=9).write(below)
    with build(quick(empty)) as disk:
        assert disk.geometry.size == MIB
        with pytest.raises(OSError, match="fixed size"):
            disk.resize(2 * MIB)
        assert (empty / "disk.img").stat().st_size == 20 * MIB


def test_shape_follows_the_container(empty: Path) -> None:
    with build(quick(empty)) as disk:
        assert disk.geometry.size == 4 * MIB
        assert disk.geometry.block_size == 4096
        identity = disk.identity
        assert disk.capabilities.crypto_erase
    with build(quick(empty)) as disk:
        assert disk.identity == identity


@pytest.mark.parametrize(("below", "expected"), [(64 * KIB, 64 * KIB), (9 * KIB, 0)])
def test_the_optimal_transfer_is_that_of_the_disk_below_if_it_is_whole_sectors(
    empty: Path, monkeypatch: pytest.MonkeyPatch, below: int, expected: int
) -> None:
    with build(quick(empty)) as disk:
        handler = disk.next
        assert isinstance(handler, EncryptHandler)
        shape = replace(handler.next.geometry, optimal_io=below)
    monkeypatch.setattr(FileHandler, "geometry", shape)
    with build(quick(empty)) as disk:
        assert disk.geometry.optimal_io == expected


def test_lost_bytes_are_named_as_seen_from_above(empty: Path) -> None:
    with build(quick(empty)) as disk:
        os.truncate(empty / "disk.img", 17 * MIB)
        with pytest.raises(OSError, match="ends at byte") as lost:
            read(disk, MIB - 4096, 8192)
        assert getattr(lost.value, "offset", None) == MIB


# Secrets


def test_the_key_is_wiped_when_the_disk_is_closed_and_kept_out_of_core_dumps(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbidden: list[bool] = []
    monkeypatch.setattr(linux, "forbid_core_dumps", lambda: forbidden.append(True))
    with build(quick(empty)) as disk:
        assert forbidden
        handler = disk.next
        assert isinstance(handler, EncryptHandler)
        handler._secret._kept = SECRET  # as one that can be read once only
    with pytest.raises(OSError, match="was destroyed"):
        handler._payload.sectors.encrypt(bytes(512), 0)
    assert handler._secret._kept is None


def test_wrong_secret(empty: Path) -> None:
    with build(quick(empty)):
        pass
    (empty / "secret").write_bytes(b"wrong")
    with pytest.raises(UsageError, match="the secret opens no key"):
        build(quick(empty)).open()


def test_key_file_is_taken_to_the_last_byte(empty: Path) -> None:
    key = empty / "key"
    key.write_bytes(b"\0binary\n")
    document = quick(empty, key_file=str(key), passphrase_file="")
    with build(document) as disk:
        write(disk, 0, b"kept")
    (empty / "secret").write_bytes(b"\0binary\n")
    with pytest.raises(UsageError, match="opens no key"):
        build(quick(empty)).open()
    with build(document) as disk:
        assert read(disk, 0, 4) == b"kept"


def test_credential_of_systemd(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = quick(empty, credential="secret", passphrase_file="")
    with pytest.raises(HostError, match="not a systemd service"):
        build(document).check()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(empty))
    with build(document), pytest.raises(Exception, match="in use"):
        build(quick(empty)).open()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"passphrase_file": ""}, "say one of"),
        ({"key_file": "/x"}, "say one of"),
        ({"credential": "a/b", "passphrase_file": ""}, "a name and no path"),
        ({"luks": 1, "kdf": "argon2id"}, "no argon2id"),
        ({"passphrase": "secret"}, "no option"),
    ],
)
def test_options_that_cannot_be_meant(empty: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(encrypt(empty, **options))


def test_missing_or_empty_secret_is_told_before_anything_opens(empty: Path) -> None:
    for path, message in (("/nowhere/secret", "No such file"), (os.devnull, "is empty")):
        with pytest.raises(UsageError, match=message):
            build(quick(empty, passphrase_file=path)).check()


def test_missing_package_is_told_in_one_line(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with build(encrypt(empty)):
        pass
    monkeypatch.setitem(sys.modules, "argon2.low_level", None)
    with pytest.raises(HostError, match="needs the Python package argon2-cffi; install python3-argon2"):
        build(encrypt(empty)).open()


# Making one, and damage


def test_nothing_is_made_unless_asked(empty: Path) -> None:
    with pytest.raises(HostError, match="is not a LUKS container"):
        build(quick(empty, create=False)).open()


def test_nothing_is_made_on_a_disk_that_is_not_empty(empty: Path) -> None:
    with (empty / "disk.img").open("r+b") as file:
        file.seek(MIB)
        file.write(b"somebody's data")
    with pytest.raises(UsageError, match="is not empty"):
        build(quick(empty)).open()
    assert b"somebody's data" in stored(empty)


@pytest.mark.parametrize(("at", "refused"), [(0, True), (4 * MIB - 1, True), (4 * MIB, False)])
def test_the_first_4_mib_decide_whether_a_disk_is_empty(empty: Path, at: int, refused: bool) -> None:
    with (empty / "disk.img").open("r+b") as file:
        file.seek(at)
        file.write(b"x")
    if refused:
        with pytest.raises(UsageError, match="is not empty"):
            build(quick(empty)).open()
        assert stored(empty)[at : at + 1] == b"x"
    else:
        with build(quick(empty)):
            pass


def test_a_header_apart_that_was_made_goes_when_the_disk_cannot_open(empty: Path) -> None:
    with (empty / "disk.img").open("r+b") as file:
        file.write(b"somebody's data")
    with pytest.raises(UsageError, match="is not empty"):
        build(apart(empty)).open()
    assert not (empty / "header").exists()


def test_no_room_for_a_header(empty: Path) -> None:
    os.truncate(empty / "disk.img", 16 * MIB)
    with pytest.raises(HostError, match="a LUKS2 header takes 16 MiB"):
        build(quick(empty)).open()


def test_one_damaged_header_is_no_harm(empty: Path) -> None:
    with build(quick(empty)) as disk:
        write(disk, 0, b"kept")
    intact = stored(empty)
    for at in (100, 5000, 0x4000 + 100, 0x4000 + 5000):
        damaged = bytearray(intact)
        damaged[at] ^= 1
        (empty / "disk.img").write_bytes(damaged)
        with build(quick(empty)) as disk:
            assert read(disk, 0, 4) == b"kept"


def test_two_damaged_headers(empty: Path) -> None:
    with build(quick(empty)):
        pass
    damaged = bytearray(stored(empty))
    damaged[100] ^= 1
    damaged[0x4000 + 100] ^= 1
    (empty / "disk.img").write_bytes(damaged)
    with pytest.raises(HostError, match="both copies of the LUKS2 header are damaged"):
        build(quick(empty)).open()


@pytest.mark.parametrize("version", [1, 2])
def test_crypto_erase_destroys_the_key_and_goes_on(empty: Path, version: int) -> None:
    document = quick(empty, luks=version)
    with build(document) as disk:
        write(disk, 0, b"x" * 4096)
        before, identity = stored(empty), disk.identity
        disk.crypto_erase()
        assert read(disk, 0, 4096) != b"x" * 4096
        write(disk, 0, b"y" * 4096)
        disk.flush()
        after = stored(empty)
    start, end = (4 * KIB, 2 * MIB) if version == 1 else (32 * KIB, 16 * MIB)
    sealed = {before[at : at + 512] for at in range(start, start + 200 * KIB, 512)}
    assert len(sealed) == 400
    assert not sealed & {after[at : at + 512] for at in range(0, end, 512)}
    with build(document) as disk:
        assert read(disk, 0, 4096) == b"y" * 4096
        assert disk.identity == identity


def test_an_erase_that_fails_leaves_no_weak_key(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with build(quick(empty)) as disk:
        monkeypatch.setattr(luks, "replace_key", broken)
        with pytest.raises(OSError, match="Input/output"):
            disk.crypto_erase()
        with pytest.raises(OSError, match="key of this disk was destroyed"):
            write(disk, 0, b"x")
        with pytest.raises(OSError, match="key of this disk was destroyed"):
            read(disk, 0, 4096)


def test_a_write_waits_for_an_erase_and_gets_the_new_key(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_key, done = luks.replace_key, Event()

    def change(disk: Checked) -> None:
        write(disk, 0, b"N" * 4096)
        done.set()

    with build(quick(empty)) as disk:
        beside = Thread(target=change, args=(disk,))

        def slow_replace(*arguments: Any) -> luks.Header:
            beside.start()
            done.wait(0.2)  # it has to wait for us; were it let in, it would have ended long before
            return replace_key(*arguments)

        monkeypatch.setattr(luks, "replace_key", slow_replace)
        disk.crypto_erase()
        beside.join()
        assert read(disk, 0, 4096) == b"N" * 4096


def test_an_erase_of_luks1_needs_no_option(empty: Path) -> None:
    with build(quick(empty, luks=1)) as disk:
        write(disk, 0, b"kept")
    document = {**encrypt(empty, create=False), "kdf_time": 0}
    with build(document) as disk:
        disk.crypto_erase()
        assert read(disk, 0, 4) != b"kept"
    with build(document):
        pass


@pytest.mark.parametrize("missing", ["memory", "secret"])
def test_an_erase_that_cannot_begin_changes_nothing(
    empty: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    with build(encrypt(empty)) as disk:
        write(disk, 0, b"kept")
        before = stored(empty)
        if missing == "memory":
            monkeypatch.setattr(linux, "memory_available", lambda: 1024)
        else:
            (empty / "secret").rename(empty / "elsewhere")
        with pytest.raises(OSError, match=r"of memory|secret: No such file") as refused:
            disk.crypto_erase()
        assert refused.value.errno == errno.EIO
        assert stored(empty) == before
        assert read(disk, 0, 4) == b"kept"
        write(disk, 0, b"more")


# Other programs


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


needs_cryptsetup = pytest.mark.skipif(not shutil.which("cryptsetup"), reason="no cryptsetup here")
needs_qemu_img = pytest.mark.skipif(not shutil.which("qemu-img"), reason="no qemu-img here")
CHEAP = ["--pbkdf-force-iterations", "4", "--pbkdf-memory", "64", "--pbkdf-parallel", "1"]
CHEAP1 = ["--pbkdf-force-iterations", "1000"]


@pytest.fixture
def key(empty: Path) -> Path:
    (empty / "key").write_bytes(SECRET)
    return empty / "key"


@needs_cryptsetup
@pytest.mark.parametrize("sector", [512, 4096])
def test_opens_what_cryptsetup_made(empty: Path, key: Path, sector: int) -> None:
    plain = os.urandom(4 * MIB)
    image = empty / "disk.img"
    image.write_bytes(plain + bytes(32 * MIB))
    run(
        "cryptsetup", "reencrypt", "--encrypt", "--type", "luks2", "--batch-mode", "--key-file", key,
        "--reduce-device-size", "32M", "--sector-size", str(sector), *CHEAP, image,
    )  # fmt: skip
    with build(encrypt(empty, create=False)) as disk:
        assert disk.geometry.block_size == sector
        assert read(disk, 0, len(plain)) == plain


@needs_cryptsetup
def test_opens_luks1_of_cryptsetup(empty: Path, key: Path) -> None:
    image = empty / "disk.img"
    run("cryptsetup", "luksFormat", "--type", "luks1", "-q", "--key-file", key, *CHEAP1, image)
    with build(encrypt(empty, create=False)) as disk:
        write(disk, 1024, b"by us")
    assert decrypted_by_qemu(image, key)[1024:1029] == b"by us"


@needs_cryptsetup
@pytest.mark.parametrize(("version", "kdf"), [(2, "argon2id"), (2, "pbkdf2"), (1, "pbkdf2")])
def test_cryptsetup_accepts_what_we_make(empty: Path, key: Path, version: int, kdf: str) -> None:
    with build(encrypt(empty, luks=version, kdf=kdf, kdf_time=int(kdf == "argon2id"))):
        pass
    image = empty / "disk.img"
    dump = run("cryptsetup", "luksDump", image)
    assert kdf in dump or version == 1
    run("cryptsetup", "luksOpen", "--test-passphrase", "--key-file", key, image)
    run(
        "cryptsetup",
        "luksAddKey",
        "-q",
        "--key-file",
        key,
        *(CHEAP if version == 2 else CHEAP1),
        image,
        empty / "secret",
    )
    (empty / "second").write_bytes(SECRET + b"\n")
    with build(encrypt(empty, key_file=str(empty / "second"), passphrase_file="")):
        pass


@needs_cryptsetup
def test_cryptsetup_decrypts_what_we_wrote(empty: Path, key: Path) -> None:
    plain = os.urandom(4 * MIB)
    with build(encrypt(empty)) as disk:
        write(disk, 0, plain)
    image = empty / "disk.img"
    header = empty / "header"
    run("cryptsetup", "luksHeaderBackup", image, "--header-backup-file", header)
    run(
        "cryptsetup", "reencrypt", "--decrypt", "--force-offline-reencrypt", "-q", "--key-file", key,
        "--header", empty / "detached", image,
    )  # fmt: skip
    assert image.read_bytes()[: len(plain)] == plain


def decrypted_by_qemu(image: Path, key: Path) -> bytes:
    out = image.with_name("plain.img")
    run(
        "qemu-img", "convert", "--object", f"secret,id=s,file={key}", "--image-opts",
        f"driver=luks,file.filename={image},key-secret=s", "-O", "raw", out,
    )  # fmt: skip
    return out.read_bytes()


@needs_qemu_img
def test_opens_what_qemu_made(empty: Path, key: Path) -> None:
    plain = os.urandom(4 * MIB)
    (empty / "plain.img").write_bytes(plain)
    make: list[str | Path] = [
        "qemu-img", "convert", "--object", f"secret,id=s,file={key}", "-O", "luks",
        "-o", "key-secret=s,iter-time=10", empty / "plain.img", empty / "disk.img",
    ]  # fmt: skip
    for _ in range(10):
        done = subprocess.run(make, capture_output=True, text=True, check=False)
        if "Unable to get accurate CPU usage" not in done.stderr:
            break
    else:
        pytest.skip("qemu-img cannot measure its CPU time on this machine")
    assert done.returncode == 0, done.stderr
    with build(encrypt(empty, create=False)) as disk:
        assert read(disk, 0, len(plain)) == plain


@needs_qemu_img
def test_qemu_reads_what_we_wrote(empty: Path, key: Path) -> None:
    plain = os.urandom(4 * MIB)
    with build(quick(empty, luks=1)) as disk:
        write(disk, 0, plain)
    assert decrypted_by_qemu(empty / "disk.img", key)[: len(plain)] == plain


@needs_cryptsetup
def test_a_cipher_that_is_not_known_is_told(empty: Path, key: Path) -> None:
    image = empty / "disk.img"
    for version in ("luks1", "luks2"):
        run(
            "cryptsetup", "luksFormat", "--type", version, "-q", "--cipher", "aes-cbc-essiv:sha256",
            "--key-file", key, *(CHEAP1 if version == "luks1" else CHEAP), image,
        )  # fmt: skip
        with pytest.raises(HostError, match="encrypted with aes-cbc-essiv:sha256; only aes-xts-plain64"):
            build(encrypt(empty, create=False)).open()


@needs_cryptsetup
def test_opens_what_cryptsetup_has_re_encrypted(empty: Path, key: Path) -> None:
    """Its data has a digest of another number than 0."""
    with build(quick(empty)) as disk:
        write(disk, 0, b"kept")
    image = empty / "disk.img"
    run(
        "cryptsetup", "reencrypt", "--force-offline-reencrypt", "-q", "--key-file", key, *CHEAP, image
    )  # fmt: skip
    with build(encrypt(empty, create=False)) as disk:
        handler = disk.next
        assert isinstance(handler, EncryptHandler)
        assert isinstance(handler._header, Luks2)
        assert "0" not in handler._header.json["digests"]
        assert read(disk, 0, 4) == b"kept"
        disk.crypto_erase()
        assert read(disk, 0, 4) != b"kept"
    with build(image.as_posix()) as disk:
        assert add_key(disk, SECRET, b"second", new_kdf(argon2=False, time=0, memory=0)) == 1
    run("cryptsetup", "luksOpen", "--test-passphrase", "--key-file", key, image)


# Headers that are apart from the data


def apart(directory: Path, **options: object) -> dict[str, object]:
    return quick(directory, **{"header": str(directory / "header"), **options})


@needs_cryptsetup
@pytest.mark.parametrize("version", ["luks1", "luks2"])
def test_a_header_alone_is_no_disk(empty: Path, key: Path, version: str) -> None:
    header = empty / "header"
    run(
        "cryptsetup", "luksFormat", "--type", version, "-q", "--key-file", key, "--header", header,
        *(CHEAP1 if version == "luks1" else CHEAP), empty / "disk.img",
    )  # fmt: skip
    before = header.read_bytes()
    with pytest.raises(HostError, match=r'detached header .* and this file as its option "header"'):
        build({**encrypt(empty), "next": str(header)}).open()
    with build(apart(empty, create=False)) as disk:
        assert disk.geometry.size == 20 * MIB
        write(disk, 0, b"kept")
    assert header.read_bytes() == before
    assert b"kept" not in stored(empty)


@needs_cryptsetup
def test_opens_data_that_cryptsetup_encrypted_with_a_header_apart(empty: Path, key: Path) -> None:
    plain = os.urandom(4 * MIB)
    (empty / "disk.img").write_bytes(plain)
    run(
        "cryptsetup", "reencrypt", "--encrypt", "--type", "luks2", "-q", "--key-file", key,
        "--force-offline-reencrypt", "--header", empty / "header", *CHEAP, empty / "disk.img",
    )  # fmt: skip
    assert stored(empty) != plain
    with build(apart(empty, create=False)) as disk:
        assert read(disk, 0, len(plain)) == plain


@needs_cryptsetup
def test_cryptsetup_decrypts_what_we_wrote_with_a_header_apart(empty: Path, key: Path) -> None:
    plain = os.urandom(20 * MIB)
    with build(apart(empty)) as disk:
        write(disk, 0, plain)
    assert stored(empty) != plain
    run(
        "cryptsetup", "reencrypt", "--decrypt", "--force-offline-reencrypt", "-q", "--key-file", key,
        "--header", empty / "header", empty / "disk.img",
    )  # fmt: skip
    assert stored(empty) == plain


@needs_cryptsetup
def test_a_backup_of_a_header_serves_as_one_apart(empty: Path, key: Path) -> None:
    with build(quick(empty)) as disk:
        write(disk, 0, b"kept")
    run("cryptsetup", "luksHeaderBackup", empty / "disk.img", "--header-backup-file", empty / "header")
    with (empty / "disk.img").open("r+b") as image:
        image.write(bytes(16 * MIB))
    with build(apart(empty, create=False)) as disk:
        assert (disk.geometry.size, read(disk, 0, 4)) == (4 * MIB, b"kept")


@pytest.mark.parametrize("version", [1, 2])
def test_an_erase_changes_the_header_that_is_apart(empty: Path, version: int) -> None:
    with build(apart(empty, luks=version)) as disk:
        write(disk, 0, b"x" * 4096)
        below, header = stored(empty), (empty / "header").read_bytes()
        disk.crypto_erase()
        assert stored(empty) == below
        assert (empty / "header").read_bytes() != header
        write(disk, 0, b"y" * 4096)
    with build(apart(empty, luks=version, create=False)) as disk:
        assert read(disk, 0, 4096) == b"y" * 4096


def test_a_header_apart_that_cannot_be_used(empty: Path) -> None:
    with pytest.raises(UsageError, match="header: no such header"):
        build(apart(empty, create=False)).check()
    stack = build(apart(empty))
    stack.forbid_making()
    with pytest.raises(UsageError, match="header: no such file, and only adding the LUN makes one"):
        stack.open()
    assert not (empty / "header").exists()
    with (empty / "disk.img").open("r+b") as image:
        image.write(b"somebody's data")
    with pytest.raises(UsageError, match="is not empty"):
        build(apart(empty)).open()
    assert not (empty / "header").exists()
    os.truncate(empty / "disk.img", 0)
    os.truncate(empty / "disk.img", MIB)
    with build(apart(empty)), pytest.raises(InUseError, match="header is in use"):
        build({**apart(empty), "next": {"handler": "memory", "size": MIB}}).open()
    os.truncate(empty / "header", MIB)
    with pytest.raises(HostError, match="the LUKS header takes 16777216 bytes"):
        build(apart(empty)).open()


def test_a_failed_opening_leaves_nothing_open(empty: Path) -> None:
    with build(apart(empty)):
        pass
    (empty / "secret").write_bytes(b"wrong")
    before = open_files()
    for _ in range(3):
        with pytest.raises(UsageError, match="opens no key"):
            build(apart(empty)).open()
    assert open_files() == before


def test_a_header_whose_data_is_behind_the_end(empty: Path) -> None:
    with build(quick(empty)):
        pass
    os.truncate(empty / "disk.img", 16 * MIB)
    with pytest.raises(HostError, match="the data of the LUKS container takes 16781312 bytes"):
        build(quick(empty)).open()


# Several headers, and others' signatures


def run_quietly(*command: str | Path) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("MBR", "echo 'label: dos\n2048,2048' | sfdisk -q {0}"),
        ("GPT", "echo 'label: gpt\n2048,2048' | sfdisk -q {0}"),
        ("ext2/ext3/ext4", "mkfs.ext4 -q -F {0} 8192"),
        ("swap", "head -c 4096 /dev/zero | dd of={0} conv=notrunc; mkswap -f {0}"),
        ("XFS", "printf XFSB | dd of={0} conv=notrunc"),
        ("MD RAID", r"printf '\374\116\053\251' | dd of={0} conv=notrunc seek=4096 bs=1"),
    ],
)
def test_a_second_copy_is_not_taken_where_something_newer_is(
    empty: Path, key: Path, name: str, command: str
) -> None:
    with build(quick(empty)):
        pass
    old, image = stored(empty), empty / "disk.img"
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(command.format(image), shell=True, capture_output=True, check=False, env=path)
    if done.returncode == 127:
        pytest.skip(f"no {command.split(maxsplit=1)[0]} here")
    with image.open("r+b") as file:  # it may have wiped more than it uses
        file.seek(0x4000)
        file.write(old[0x4000 : 0x4000 * 2])
    with pytest.raises(HostError, match=f"has a {name} at its beginning, and only the second copy"):
        build(quick(empty)).open()
    if shutil.which("cryptsetup") and name not in ("XFS", "MD RAID"):  # these are not whole
        assert run_quietly("cryptsetup", "luksOpen", "--test-passphrase", "--key-file", key, image)


def test_a_second_copy_of_another_container_is_not_taken(empty: Path) -> None:
    """It was left behind where a larger header had its own, and has been changed more often."""
    with build(quick(empty)) as disk:
        write(disk, 0, b"kept")
    with (empty / "other.img").open("wb") as file:
        file.truncate(20 * MIB)
    with build({**quick(empty), "next": str(empty / "other.img")}) as disk:
        handler = disk.next
        assert isinstance(handler, EncryptHandler)
        assert isinstance(handler._header, Luks2)
        stale = replace(handler._header, sequence=99)
    larger = replace(stale, header_size=0x80000, json={**stale.json, "keyslots": {}}).encode(second=True)
    with (empty / "disk.img").open("r+b") as image:
        image.seek(0x80000)
        image.write(larger)
    with build(quick(empty)) as disk:
        assert read(disk, 0, 4) == b"kept"
    with (empty / "disk.img").open("r+b") as image:
        image.write(bytes(0x4000))
    with pytest.raises(HostError, match="headers of several containers"):
        build(quick(empty)).open()
    with (empty / "disk.img").open("r+b") as image:
        image.seek(0x4000)
        image.write(stale.encode(second=True))
        image.seek(0)
        image.write(replace(stale, uuid="another", sequence=1).encode(second=False))
    with build(str(empty / "disk.img")) as disk:
        found = luks.find(disk)
        assert found is not None
        assert found.uuid == "another"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segments": {}}, "segments that are not known"),
        ({"digests": {}}, "no digest for its data"),
        ({"keyslots": {"0": 1}}, "metadata that is not understood: Expected `object`"),
        ({"config": {"json_size": "12288", "keyslots_size": "x"}}, "metadata that is not understood"),
        ({"config": {"json_size": "12288", "keyslots_size": "4096"}}, "lies outside of the room for keys"),
    ],
)
def test_metadata_that_makes_no_sense(empty: Path, change: dict[str, object], message: str) -> None:
    with build(quick(empty)) as disk:
        handler = disk.next
        assert isinstance(handler, EncryptHandler)
        assert isinstance(handler._header, Luks2)
        header = handler._header
    with (empty / "disk.img").open("r+b") as image:
        image.write(replace(header, json={**header.json, **change}, sequence=9).encode(second=False))
    with pytest.raises(HostError, match=message):
        build(quick(empty)).open()


def test_a_disk_that_is_smaller_than_a_header(empty: Path) -> None:
    os.truncate(empty / "disk.img", 512)
    with pytest.raises(HostError, match="is not a LUKS container"):
        build(quick(empty, create=False)).open()
    (empty / "disk.img").write_bytes(b"LUKS\xba\xbe\x00\x01".ljust(512, b"\0"))
    with pytest.raises(HostError, match="the LUKS1 header is cut off"):
        build(quick(empty)).open()


# Copies


def test_a_copy_is_refused_while_the_original_is_a_disk(empty: Path) -> None:
    with build(quick(empty)):
        pass
    shutil.copy(empty / "disk.img", empty / "copy.img")
    copy = {**quick(empty), "next": str(empty / "copy.img")}
    with (
        build(quick(empty)),
        pytest.raises(InUseError, match=r"another disk has the LUKS container .* luksUUID"),
    ):
        build(copy).open()
    with build(copy), pytest.raises(InUseError, match="another disk has"):
        build(quick(empty)).open()


def test_readers_share_a_container_and_not_a_copy(empty: Path) -> None:
    with build(quick(empty)):
        pass
    shutil.copy(empty / "disk.img", empty / "copy.img")
    original, copy = (
        {**quick(empty), "next": {"handler": "file", "path": str(empty / name), "read_only": True}}
        for name in ("disk.img", "copy.img")
    )
    with build(original), build(original), pytest.raises(InUseError, match="another disk has"):
        build(copy).open()


# Reading, changing and writing


@pytest.mark.parametrize("verb", ["write", "unmap"])
def test_a_write_of_less_than_a_sector_undoes_nothing_beside_it(
    empty: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    load, changed = Payload.read, Event()

    def change(disk: Checked) -> None:
        if verb == "write":
            write(disk, 0, bytes(4096))
        else:
            disk.unmap(0, 4096)
        changed.set()

    with build(quick(empty, discard=True)) as disk:
        write(disk, 0, b"D" * 4096)
        beside = Thread(target=change, args=(disk,))

        def slow_load(payload: Payload, offset: int, views: Views) -> None:
            load(payload, offset, views)
            if not beside.ident:
                beside.start()
                changed.wait(0.2)  # it has to wait for us; were it let in, it would be done long before

        monkeypatch.setattr(Payload, "read", slow_load)
        write(disk, 512, b"N" * 512)
        beside.join()
        assert read(disk, 0, 512) == bytes(512)


def test_a_part_of_the_last_sector(empty: Path) -> None:
    with build(quick(empty)) as disk:
        end = disk.geometry.size
        write(disk, end - 8192, b"D" * 8192)
        write(disk, end - 100, b"N" * 60)
        assert read(disk, end - 150, 150) == b"D" * 50 + b"N" * 60 + b"D" * 40


def test_whole_sectors_are_moved_without_a_copy_and_beside_each_other(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    below = FileHandler.read

    def noting(handler: FileHandler, offset: int, views: Views) -> None:
        seen.extend(views)
        below(handler, offset, views)

    with build(quick(empty)) as disk:
        monkeypatch.setattr(FileHandler, "read", noting)
        monkeypatch.setattr(RWLock, "alone", None)
        write(disk, 4096, b"x" * 8192)
        assert seen == []
        room = memoryview(bytearray(8192))
        disk.read(4096, [room])
        assert room == b"x" * 8192
        assert seen[0] is room


# Secrets that can be read once


@pytest.mark.parametrize("option", ["key_file", "passphrase_file"])
def test_a_secret_from_a_pipe(empty: Path, option: str) -> None:
    ours, theirs = os.pipe()
    try:
        os.write(theirs, SECRET)
        os.close(theirs)
        document = {**quick(empty, passphrase_file=""), option: f"/dev/fd/{ours}"}
        build(document).check()
        with build(document) as disk:
            write(disk, 0, b"before")
            disk.crypto_erase()
            assert read(disk, 0, 6) != b"before"
            write(disk, 0, b"kept")
    finally:
        os.close(ours)
    with build(quick(empty)) as disk:
        assert read(disk, 0, 4) == b"kept"


def test_a_key_file_that_is_too_long(empty: Path) -> None:
    (empty / "key").write_bytes(bytes((8 << 20) + 1))
    with pytest.raises(UsageError, match="more than the 8388608 bytes"):
        build(quick(empty, key_file=str(empty / "key"), passphrase_file="")).check()


def test_json_of_the_header_is_kept(empty: Path) -> None:
    with build(quick(empty)) as disk:
        handler = disk.next
        assert isinstance(handler, EncryptHandler)
        header = handler._header
        assert isinstance(header, Luks2)
        assert json.loads(stored(empty)[4096:16384].rstrip(b"\0")) == header.json
