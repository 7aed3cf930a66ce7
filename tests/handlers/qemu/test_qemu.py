"""Images of QEMU, with real daemons."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.handlers.places import open_files
from tests.handlers.qemu import engine
from tests.handlers.qemu.images import NEEDS, check_tables, fill, leak, make, run
from tests.polling import wait_until
from vscsihba.config.sizes import with_size
from vscsihba.errors import ConfigError, FlushError, HostError, InUseError, NoSuchFileError, UsageError
from vscsihba.handlers import actions
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.qemu import handler as qemu_handler
from vscsihba.handlers.qemu import open_image, programs, supervisor
from vscsihba.handlers.qemu.handler import QemuHandler
from vscsihba.handlers.shared import tmpfs_store
from vscsihba.handlers.stack import Document, Stack, build
from vscsihba.testing.disk_model import KIB, read, write

pytestmark = NEEDS

MIB = 1 << 20


class OpenDisk:
    """An open disk.

    Attributes:
        top: The top of its stack.
        handler: The image.
    """

    def __init__(self, document: Document, *, make: bool) -> None:
        self._stack: Stack | None = build(document, make=make)
        (handler,) = self._stack.layers
        assert isinstance(handler, QemuHandler)
        self.handler = handler
        self.top: Checked = self._stack.open()

    def close(self) -> None:
        """Close it, if it is open still."""
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., OpenDisk]]:
    """Return a function that opens a disk, closed after the test if it is open still."""
    disks: list[OpenDisk] = []

    def open_(document: Document, *, make: bool = True) -> OpenDisk:
        disks.append(OpenDisk(document, make=make))
        return disks[-1]

    yield open_
    for disk in disks:
        disk.close()


Opened = Callable[..., OpenDisk]


def qemu(path: Path, **more: object) -> dict[str, Any]:
    return {"handler": "qemu", "path": str(path), **more}


def new(path: Path, format_: str = "qcow2", size: int = MIB, **more: object) -> dict[str, Any]:
    return qemu(path, format=format_, size=size, **more)


def daemon_of(disk: OpenDisk) -> int:
    """Return the process of the daemon, once there is one."""
    handler = disk.handler
    return wait_until(lambda: handler.daemon, "there is a daemon", limit=20) or 0


def kill(disk: OpenDisk) -> None:
    """Kill the daemon, and wait until another one has taken its place."""
    before = daemon_of(disk)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: disk.handler.daemon not in (before, None), "another daemon", limit=20)


def is_running(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def raw_content(path: Path, format_: str = "qcow2") -> bytes:
    """Return the content of a disk as QEMU's own tool reads it."""
    raw = path.with_suffix(".raw")
    run("qemu-img", "convert", "-f", format_, "-O", "raw", path, raw)
    return raw.read_bytes()


@pytest.mark.parametrize("format_", ["qcow2", "vmdk", "vdi", "vpc", "qed", "vhdx", "parallels"])
def test_an_image_is_created_written_and_equal(tmp_path: Path, opened: Opened, format_: str) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path, format_, 8 * MIB))
    size = disk.top.geometry.size
    write(disk.top, 64 * KIB, b"x" * 5 * 512)
    write(disk.top, size - 512, b"y" * 512, fua=True)
    disk.close()
    content = raw_content(path, format_)
    assert len(content) == size >= 8 * MIB
    assert content.replace(b"\0", b"") == b"x" * 5 * 512 + b"y" * 512
    assert content[64 * KIB : 64 * KIB + 2560] == b"x" * 2560
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
    assert path.stat().st_mode & 0o077 == 0
    assert read(opened(qemu(path)).top, size - 512, 512) == b"y" * 512


def test_a_written_qcow2_passes_the_check_of_qemu(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path, size=64 * MIB))
    for number in range(200):
        write(disk.top, number * 250_000, bytes([number]) * 3000)
    disk.top.unmap(0, 32 * MIB)
    disk.close()
    check_tables(path)
    content = raw_content(path)
    assert not any(content[: 32 * MIB])
    for number in range(135, 200):
        assert content[number * 250_000 :][:3000] == bytes([number]) * 3000


def test_a_chain_of_three_is_read_through(tmp_path: Path, opened: Opened) -> None:
    base, middle, top = (tmp_path / name for name in ("base", "middle", "top"))
    fill(make(base), 1, "0", "192k")
    fill(make(middle, "1M", "-b", base, "-F", "qcow2"), 2, "64k", "128k")
    before = base.read_bytes(), middle.read_bytes()
    disk = opened(qemu(top, format="qcow2", backing=str(middle)))
    assert disk.top.geometry.size == MIB
    write(disk.top, 128 * KIB, b"\3" * 64 * KIB)
    expected = b"".join(bytes([byte]) * 64 * KIB for byte in (1, 2, 3))
    assert read(disk.top, 0, 192 * KIB) == expected
    assert not disk.top.capabilities.in_place
    disk.close()
    assert (base.read_bytes(), middle.read_bytes()) == before
    assert raw_content(top)[: 192 * KIB] == expected
    info = json.loads(run("qemu-img", "info", "--output=json", top))
    assert info["backing-filename-format"] == "qcow2"


def test_an_internal_snapshot_is_read_only(tmp_path: Path, opened: Opened) -> None:
    path = make(tmp_path / "disk")
    fill(path, 1)
    run("qemu-img", "snapshot", "-c", "before", path)
    fill(path, 2)
    disk = opened(qemu(path, snapshot="before"))
    assert read(disk.top, 0, 64 * KIB) == b"\1" * 64 * KIB
    assert disk.top.capabilities.read_only
    assert disk.top.identity == f"qemu:{path}@before"
    with pytest.raises(OSError, match="Read-only"):
        write(disk.top, 0, b"x")
    other = opened(qemu(path, read_only=True))  # both only read
    assert read(other.top, 0, 64 * KIB) == b"\2" * 64 * KIB
    kill(disk)
    assert read(disk.top, 0, 4) == b"\1" * 4
    with pytest.raises(InUseError):
        opened(qemu(path))
    pid = daemon_of(disk)
    disk.close()
    assert not is_running(pid)
    with pytest.raises(HostError, match=f"{path} has no such snapshot; qemu-img snapshot -l {path} lists"):
        opened(qemu(path, snapshot="after"))
    vmdk = make(tmp_path / "disk.vmdk", "1M", format="vmdk")
    with pytest.raises(HostError, match="has no internal snapshots; only qcow2 has them"):
        opened(qemu(vmdk, snapshot="before"))


def test_a_raw_image_has_to_be_named(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"a" * MIB)
    with pytest.raises(UsageError, match="no image format that can be recognised"):
        opened(qemu(path))
    disk = opened(qemu(path, format="raw"))
    write(disk.top, 0, b"QFI\xfb\0\0\0\3")  # what would be taken for a qcow2 next time
    disk.close()
    disk = opened(qemu(path, format="raw"))
    assert read(disk.top, 0, 9) == b"QFI\xfb\0\0\0\3a"


def test_a_luks_image_is_created(tmp_path: Path, opened: Opened) -> None:
    path, key = tmp_path / "disk", tmp_path / "key"
    key.write_text("secret\n")
    key.chmod(0o600)
    disk = opened(new(path, "luks", passphrase_file=str(key)))
    write(disk.top, 0, b"plain text" * 100)
    assert read(disk.top, 5, 10) == b" textplain"
    disk.close()
    assert b"plain text" not in path.read_bytes()
    assert path.read_bytes().startswith(b"LUKS")


@pytest.mark.parametrize("format_", ["luks", "qcow2"])
def test_an_encrypted_image(tmp_path: Path, opened: Opened, format_: str) -> None:
    path, key, other = tmp_path / "disk", tmp_path / "key", tmp_path / "other"
    encryption = "" if format_ == "luks" else "encrypt."
    quick = f"{encryption}key-secret=key,{encryption}iter-time=10"  # so that opening is quick
    chosen = quick if format_ == "luks" else f"encrypt.format=luks,{quick}"
    make(path, "1M", "--object", "secret,id=key,data=secret", "-o", chosen, format=format_)
    key.write_text("secret\n")
    other.write_text("wrong")
    for each in (key, other):
        each.chmod(0o600)
    disk = opened(qemu(path, passphrase_file=str(key)))
    write(disk.top, 0, b"plain text" * 100)
    kill(disk)
    assert read(disk.top, 0, 1000) == b"plain text" * 100
    disk.close()
    assert b"plain text" not in path.read_bytes()
    with pytest.raises(UsageError, match="the key does not open it; correct the file"):
        opened(qemu(path, key_file=str(other)))
    with pytest.raises(UsageError, match='is encrypted; name its "passphrase_file"'):
        opened(qemu(path))
    other.write_text("secret")
    assert read(opened(qemu(path, key_file=str(other))).top, 0, 5) == b"plain"


def test_a_key_of_an_image_that_is_not_encrypted_is_refused(tmp_path: Path, opened: Opened) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    key.chmod(0o600)
    with pytest.raises(UsageError, match="is not encrypted; leave its key out"):
        opened(qemu(make(tmp_path / "disk"), key_file=str(key)))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, opened: Opened) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    key.chmod(0o640)
    with pytest.raises(UsageError, match=r"others can read .*/key \(mode 0640\); chmod 600"):
        opened(new(tmp_path / "disk", "luks", key_file=str(key)))
    assert not (tmp_path / "disk").exists()


def test_a_size_with_a_part_of_a_block_creates_nothing(tmp_path: Path, opened: Opened) -> None:
    document = new(tmp_path / "disk", size=MIB + 512, block_size=4096)
    with pytest.raises(UsageError, match=r'not a multiple of the block size 4096; use "size": 1052672'):
        opened(document)
    assert not (tmp_path / "disk").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backing": "/a"}, 'needs a "format", as it may create'),
        ({"size": "1MiB", "format": "qcow2", "read_only": True}, "do not go with"),
        ({"backing_format": "raw"}, 'needs a "backing"'),
        ({"snapshot": "x", "format": "vmdk"}, "only a qcow2 image"),
        ({"key_file": "/a", "passphrase_file": "/b"}, "use only one of"),
        ({"credential": "a/b"}, "has a name and no path"),
        ({"format": "zip"}, "it cannot be"),
    ],
)
def test_options_that_contradict_each_other(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(qemu(tmp_path / "disk", **options))


def test_an_image_is_created_once(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    with pytest.raises(NoSuchFileError, match='disk: no such image; create it, or set "format" and "size"'):
        opened(qemu(path))
    with pytest.raises(UsageError, match="only adding the LUN makes one"):
        opened(new(path), make=False)
    opened(new(path)).close()
    content = path.read_bytes()
    opened(new(path, size=2 * MIB)).close()
    assert path.read_bytes() == content


def test_a_missing_image_without_a_format_to_create_is_refused(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    with pytest.raises(
        NoSuchFileError, match=f'{path}: no such image; set "format" to that of a new one: qcow2'
    ):
        opened(qemu(path, size="1MiB"))
    with pytest.raises(
        NoSuchFileError, match=f"no such image; create it: qemu-img create -f raw {path} {MIB}"
    ):
        opened(qemu(path, size="1MiB", format="raw"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_an_image_whose_format_is_recognised_can_be_resized(
    tmp_path: Path, opened: Opened, format_: str
) -> None:
    path = make(tmp_path / "disk", format=format_)
    format_option = {"format": "raw"} if format_ == "raw" else {}
    disk = opened(qemu(path, **format_option))
    disk.top.resize(2 * MIB)
    disk.close()
    resized = with_size(qemu(path, **format_option), 2 * MIB)  # as the service keeps it
    assert opened(resized, make=False).top.geometry.size == 2 * MIB


def test_an_overlay_of_another_image_is_refused(tmp_path: Path, opened: Opened) -> None:
    base, other, top = (tmp_path / name for name in ("base", "other", "top"))
    make(base)
    make(other)
    (tmp_path / "link").symlink_to(base)
    opened(qemu(top, format="qcow2", backing=str(base))).close()
    opened(qemu(top, format="qcow2", backing=str(tmp_path / "link"))).close()
    with pytest.raises(UsageError, match=f"{top} is an overlay of {base}, not of {other}; correct its"):
        opened(qemu(top, format="qcow2", backing=str(other)))
    with pytest.raises(UsageError, match=f"{other} has no backing image, and should be an overlay of {base}"):
        opened(qemu(other, format="qcow2", backing=str(base)))
    make(tmp_path / "relative", "1M", "-b", "base", "-F", "qcow2")
    opened(qemu(tmp_path / "relative", format="qcow2", backing=str(base))).close()


def test_an_image_that_cannot_be_created_leaves_nothing(
    tmp_path: Path, opened: Opened, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = tmp_path_factory.mktemp("keys") / "key"
    key.write_text("secret")
    key.chmod(0o600)
    with pytest.raises(HostError, match="cannot be created"):
        opened(new(tmp_path / "disk", "vpc", 1 << 50))
    with pytest.raises(UsageError, match="there is no directory"):
        opened(new(tmp_path / "nowhere" / "disk"))
    with pytest.raises(UsageError, match="needs a key"):
        opened(new(tmp_path / "disk", "luks"))
    with pytest.raises(UsageError, match="is not encrypted"):
        opened(new(tmp_path / "disk", "vmdk", key_file=str(key)))
    with pytest.raises(NoSuchFileError):
        opened(qemu(tmp_path / "disk", format="qcow2", backing=str(tmp_path / "base")))
    assert list(tmp_path.iterdir()) == []


def test_two_writers_are_refused_in_one_line(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    opened(new(path))
    link = tmp_path / "link"
    link.symlink_to(path)
    for other in (path, link):
        with pytest.raises(InUseError, match="in use"):
            opened(qemu(other))
    with pytest.raises(InUseError):
        opened(qemu(path, read_only=True))


def test_another_program_that_has_the_image_is_noticed_at_once(tmp_path: Path, opened: Opened) -> None:
    path = make(tmp_path / "disk")
    other = subprocess.Popen(["qemu-nbd", "-t", "-f", "qcow2", "-k", tmp_path / "socket", path])
    try:
        wait_until((tmp_path / "socket").exists, "qemu-nbd listens", limit=20)
        began = time.monotonic()
        with pytest.raises(InUseError, match="another program has it open") as error:
            opened(qemu(path))
        assert "\n" not in str(error.value)
        assert time.monotonic() - began < 10
    finally:
        other.terminate()
        other.wait()
    opened(qemu(path))


def test_readers_share_an_image(tmp_path: Path, opened: Opened) -> None:
    path = make(tmp_path / "disk")
    fill(path, 7)
    before = path.read_bytes()
    for _ in range(2):
        disk = opened(qemu(path, read_only=True))
        assert read(disk.top, 0, 2) == b"\7\7"
        assert disk.top.capabilities.read_only
    assert path.read_bytes() == before


def test_a_disk_is_resized(tmp_path: Path, opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path))
    write(disk.top, MIB - 512, b"x" * 512)
    disk.top.resize(3 * MIB)
    assert disk.top.geometry.size == 3 * MIB
    write(disk.top, 3 * MIB - 512, b"y" * 512)
    assert read(disk.top, MIB - 512, 1024) == b"x" * 512 + bytes(512)
    disk.top.resize(MIB + 512)
    disk.top.resize(2 * MIB)
    assert read(disk.top, MIB, MIB) == bytes(MIB)
    assert caplog.text == ""  # no connection is lost, as far as a person is concerned
    kill(disk)
    assert read(disk.top, MIB - 512, 512) == b"x" * 512
    assert "connection lost" in caplog.text
    assert "its daemon has died (killed by SIGKILL); another one is started" in caplog.text
    disk.close()
    assert len(raw_content(path)) == 2 * MIB


def test_a_format_that_cannot_be_resized_says_so(tmp_path: Path, opened: Opened) -> None:
    disk = opened(new(tmp_path / "disk", "vmdk"))
    write(disk.top, 0, b"x" * 512)
    with pytest.raises(OSError, match="does not support resize") as error:
        disk.top.resize(2 * MIB)
    assert error.value.errno == errno.EOPNOTSUPP
    assert disk.top.geometry.size == MIB
    assert read(disk.top, 0, 512) == b"x" * 512


def test_discarded_clusters_give_their_storage_back(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path, size=16 * MIB))
    write(disk.top, 0, b"x" * 8 * MIB)
    disk.top.flush()
    full = path.stat().st_blocks
    assert [(each.extent.length, each.allocated) for each in disk.top.extents(0, 16 * MIB)] == [
        (8 * MIB, True),
        (8 * MIB, False),
    ]
    disk.top.unmap(MIB, 6 * MIB)
    disk.top.flush()
    assert path.stat().st_blocks < full / 2
    assert not any(read(disk.top, MIB, 6 * MIB))
    space = disk.top.space()
    assert space is not None
    assert space.used == path.stat().st_blocks * 512
    assert disk.top.capabilities.unmap_granularity == 64 * KIB


def test_a_format_without_zero_clusters_is_not_thin(tmp_path: Path, opened: Opened) -> None:
    disk = opened(new(tmp_path / "disk", "vmdk"))
    assert not disk.top.capabilities.unmap
    with pytest.raises(OSError, match="does not unmap"):
        disk.handler.unmap(0, 512)
    asynchronous = disk.handler.asynchronous
    assert asynchronous is not None
    assert asynchronous.unmap is None


@pytest.mark.parametrize("cache", ["writeback", "none", "writethrough", "directsync"])
def test_cache_modes(tmp_path: Path, opened: Opened, cache: str) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path, cache=cache))
    write(disk.top, 0, b"x" * 512)
    write(disk.top, 1000, b"y" * 100, fua=True)
    kill(disk)
    assert read(disk.top, 0, 512) == b"x" * 512
    assert read(disk.top, 1000, 100) == b"y" * 100
    assert actions.ask(disk.handler, "status", {})["logged"] == 0  # type: ignore[index]
    write(disk.top, 0, b"z" * 512)
    logged = actions.ask(disk.handler, "status", {})["logged"]  # type: ignore[index]
    assert logged == (1 if cache in ("writeback", "none") else 0)


def test_a_check_finds_what_qemu_finds(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path))
    write(disk.top, 0, b"x" * 64 * KIB)
    clean = actions.ask(disk.handler, "check", {})
    assert isinstance(clean, dict)
    assert (clean["corruptions"], clean["leaks"]) == (0, 0)
    disk.close()
    leak(path)
    found = actions.ask(opened(qemu(path, read_only=True)).handler, "check", {})
    assert isinstance(found, dict)
    assert found["leaks"] == 1


def test_an_encrypted_image_is_checked(tmp_path: Path, opened: Opened) -> None:
    path, key = tmp_path / "disk", tmp_path / "key"
    make(
        *(path, "1M", "--object", "secret,id=key,data=secret", "-o"),
        "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10",
    )
    key.write_text("secret")
    key.chmod(0o600)
    found = actions.ask(opened(qemu(path, key_file=str(key))).handler, "check", {})
    assert isinstance(found, dict)
    assert (found["corruptions"], found["leaks"]) == (0, 0)


def test_leaks_of_a_killed_engine_are_freed_when_the_image_is_opened_again(
    tmp_path: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "disk"
    Engine(new(path)).kill_after_writing()
    leak(path)
    disk = opened(qemu(path))
    check_pages(disk.top)
    disk.close()
    assert "that nothing used are free again" in caplog.text
    check_tables(path)
    leak(path)  # by somebody else: not looked for after an orderly end
    opened(qemu(path)).close()
    with pytest.raises(AssertionError, match="leaked"):
        check_tables(path)


def test_leaks_of_a_killed_daemon_are_freed_when_the_image_is_opened_again(
    tmp_path: Path, opened: Opened, own_tmpfs_directory: Path
) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path))
    write(disk.top, 0, b"x" * 64 * KIB)
    kill(disk)
    disk.close()
    leak(path)
    opened(qemu(path, read_only=True)).close()  # which changes nothing, and leaves it to the next one
    opened(qemu(path)).close()
    check_tables(path)
    assert [each.name for each in own_tmpfs_directory.iterdir() if "log" in each.name] == []


def test_a_successor_waits_for_the_repair_of_a_killed_process(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process leaves its qemu-img behind for a moment, which has the image locked."""
    path = tmp_path / "disk"
    disk = opened(new(path))
    kill(disk)
    disk.close()
    inherited: list[int] = []
    run_program = programs.run

    def spy(program: str, arguments: list[str], *, files: Sequence[int] = (), **more: Any) -> Any:
        if "-r" in arguments:
            inherited.extend(os.fstat(file).st_ino for file in files)
        return run_program(program, arguments, files=files, **more)

    monkeypatch.setattr(programs, "run", spy)
    again = opened(qemu(path))
    assert inherited == [os.fstat(again.handler._image._plan.lock).st_ino]


def test_leaks_that_cannot_be_freed_in_time_are_told(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path))
    kill(disk)
    disk.close()
    monkeypatch.setattr(open_image, "_FREEING", 1e-6)
    opened(qemu(path))
    assert f"while no disk uses the image, qemu-img check -r leaks {path} frees them" in caplog.text


def test_leaks_of_an_image_that_a_program_has_open_are_left_alone(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path))
    kill(disk)
    disk.close()
    leak(path)
    before = path.read_bytes()
    other = subprocess.Popen(["qemu-nbd", "-t", "-f", "qcow2", "-k", tmp_path / "socket", path])
    try:
        wait_until((tmp_path / "socket").exists, "qemu-nbd listens", limit=20)
        with pytest.raises(InUseError, match="another program has it open"):
            opened(qemu(path))
        assert path.read_bytes() == before
    finally:
        other.terminate()
        other.wait()
    opened(qemu(path)).close()
    check_tables(path)


def test_a_check_that_takes_long_ends(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = opened(new(tmp_path / "disk"))
    monkeypatch.setattr(qemu_handler, "_CHECK", 1e-6)
    with pytest.raises(HostError, match=r"takes longer than .*; check the image while no disk uses it"):
        actions.ask(disk.handler, "check", {})
    write(disk.top, 0, b"x")


def test_a_format_without_a_check_says_so(tmp_path: Path, opened: Opened) -> None:
    with pytest.raises(OSError, match="the format vpc has no check"):
        actions.ask(opened(new(tmp_path / "disk", "vpc")).handler, "check", {})


def test_nothing_acknowledged_is_lost_when_the_daemon_dies(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path, size=64 * MIB))
    write(disk.top, 0, b"a" * 64 * KIB)
    disk.top.flush()
    write(disk.top, 0, b"b" * 512)
    write(disk.top, 10 * MIB, b"c" * 100_000)
    disk.top.write_zeroes(512, 512, may_unmap=False)
    for _ in range(3):
        kill(disk)
    assert read(disk.top, 0, 1536) == b"b" * 512 + bytes(512) + b"a" * 512
    disk.top.flush()
    kill(disk)
    disk.close()
    check_tables(path, killed=True)
    content = raw_content(path)
    assert content[:1536] == b"b" * 512 + bytes(512) + b"a" * 512
    assert content[10 * MIB : 10 * MIB + 100_000] == b"c" * 100_000


def test_the_daemon_dies_under_load(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path, size=64 * MIB, log_size=MIB))
    ended = threading.Event()
    failures: list[BaseException] = []
    states = [bytearray(MIB) for _ in range(4)]

    def load(number: int) -> None:
        seed = number
        try:
            while not ended.is_set():
                seed = (seed * 1103515245 + 12345) % (1 << 31)
                at, length = seed % (MIB - 70_000), 1 + seed % 70_000
                data = bytes([seed % 251]) * length
                write(disk.top, number * 9 * MIB + at, data)
                states[number][at : at + length] = data
                if seed % 16 == 0:
                    disk.top.flush()
                assert read(disk.top, number * 9 * MIB + at, length) == data
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        time.sleep(0.3)
        kill(disk)
    ended.set()
    for thread in threads:
        thread.join(60)
    assert failures == []
    for number, state in enumerate(states):
        assert read(disk.top, number * 9 * MIB, MIB) == state
    disk.close()
    check_tables(path, killed=True)
    content = raw_content(path)
    for number, state in enumerate(states):
        assert content[number * 9 * MIB :][:MIB] == state


def test_a_daemon_that_cannot_come_back_fails_requests_in_time(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path, timeout=1.0))
    write(disk.top, 0, b"x" * 512)
    with monkeypatch.context() as patch:
        patch.setattr(programs, "start", _refuse)
        os.kill(daemon_of(disk), signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(OSError, match="disk"):
            read(disk.top, 0, 512)
        assert time.monotonic() - began < 10
    wait_until(lambda: disk.handler.daemon, "there is a daemon again", limit=20)
    assert _retried(lambda: read(disk.top, 0, 512)) == b"x" * 512
    _retried(disk.top.flush)


def _refuse(*_arguments: object, **_named: object) -> programs.Process:
    raise OSError(errno.EAGAIN, "no process can be started")


def _retried(verb: Callable[[], Any]) -> Any:
    """Run a verb, again while the link is not connected yet."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return verb()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_a_daemon_that_hangs_is_replaced(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path, timeout=1.0))
    write(disk.top, 0, b"x" * 512)
    pid = daemon_of(disk)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        write(disk.top, 0, b"y" * 512)
    wait_until(lambda: not is_running(pid), "the daemon is killed, so that it writes nothing later", limit=20)
    assert _retried(lambda: read(disk.top, 0, 512)) in (b"x" * 512, b"y" * 512)


def test_a_disk_whose_daemon_hangs_can_be_closed(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path, timeout=1.0))
    write(disk.top, 0, b"x" * 512)
    pid = daemon_of(disk)
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(supervisor, "_GRACE", 1.0)
    began = time.monotonic()
    disk.close()
    assert time.monotonic() - began < 20
    assert not is_running(pid)
    assert read(opened(qemu(path)).top, 0, 512) == b"x" * 512


def test_a_flush_that_fails_is_told_from_then_on(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    disk = opened(new(path))
    write(disk.top, 0, b"x" * 512)
    flushes = disk.handler._image.disk._flushes
    flushes._judged(OSError(errno.EIO, "lost"))
    with pytest.raises(FlushError):
        disk.top.flush()
    disk.close()  # the log stays
    again = opened(qemu(path))
    again.top.flush()
    assert read(again.top, 0, 512) == b"x" * 512


def test_no_process_folder_or_descriptor_is_left(
    tmp_path: Path, opened: Opened, own_tmpfs_directory: Path
) -> None:
    path = tmp_path / "disk"
    opened(new(path)).close()
    before = open_files()
    for _ in range(2):
        disk = opened(qemu(path))
        pid = daemon_of(disk)
        write(disk.top, 0, b"x")
        kill(disk)
        disk.close()
        assert not is_running(pid)
    opened(qemu(path)).close()  # frees what the last daemon may have left
    assert open_files() == before
    assert [each.name for each in own_tmpfs_directory.iterdir() if "log" in each.name] == []
    assert list(own_tmpfs_directory.glob("qemu.*/")) == []
    assert not [thread for thread in threading.enumerate() if str(path) in thread.name]


def test_an_open_that_fails_leaves_nothing(tmp_path: Path, opened: Opened, own_tmpfs_directory: Path) -> None:
    path = make(tmp_path / "disk")
    before = open_files()
    for document in (qemu(path, snapshot="none"), qemu(path, block_size=4096, format="vmdk")):
        with pytest.raises((HostError, UsageError)):
            opened(document)
    assert open_files() == before
    assert list(own_tmpfs_directory.glob("qemu.*/")) == []


class Engine:
    """A process that has an image open, and is killed."""

    def __init__(self, document: dict[str, Any], flushed: int = 10) -> None:
        directory = str(tmpfs_store.DIRECTORY)
        command = [sys.executable, "-m", "tests.handlers.qemu.engine", directory, json.dumps(document)]
        self._process = subprocess.Popen([*command, str(flushed)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.daemon = int(self._process.stdout.readline())

    def kill_after_writing(self) -> None:
        """Kill it, and nothing else, once all of its writes are acknowledged."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "written\n"
        self.kill()

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]


def check_pages(disk: Checked) -> None:
    """Check that everything that such a process has written is there."""
    for page in range(32):
        expected = 0 if page == 1 else page + 1
        assert read(disk, page * 3 * engine.PAGE, engine.PAGE) == bytes([expected]) * engine.PAGE


def test_the_next_engine_has_everything_that_a_killed_one_acknowledged(
    tmp_path: Path, opened: Opened
) -> None:
    path = tmp_path / "disk"
    killed = Engine(new(path))
    killed.kill_after_writing()
    disk = opened(qemu(path))
    assert not is_running(killed.daemon)
    check_pages(disk.top)
    assert actions.ask(disk.handler, "status", {})["logged"] == 0  # type: ignore[index]
    disk.close()
    check_tables(path, killed=True)


def test_a_killed_engine_takes_its_daemon_along(tmp_path: Path) -> None:
    killed = Engine(new(tmp_path / "disk"))
    assert is_running(killed.daemon)
    killed.kill()
    wait_until(lambda: not is_running(killed.daemon), "the daemon has ended", limit=20)


def test_a_successor_waits_for_the_daemon_of_a_killed_engine(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    killed = Engine(new(path))
    killed.kill()  # and at once:
    opened(qemu(path))
    assert not is_running(killed.daemon)


def test_logged_writes_belong_to_one_file(tmp_path: Path, opened: Opened) -> None:
    path, other = tmp_path / "disk", tmp_path / "other"
    Engine(new(path)).kill_after_writing()
    other.write_bytes(path.read_bytes())
    read_only = opened(qemu(other, read_only=True))  # a copy lacks what was not flushed, and gets nothing
    assert read(read_only.top, 31 * 3 * engine.PAGE, engine.PAGE) == bytes(engine.PAGE)
    read_only.close()
    with pytest.raises(HostError, match=r"lacks .* acknowledged writes of a killed process"):
        opened(qemu(path, read_only=True))
    path.rename(tmp_path / "moved")
    other.rename(path)
    with pytest.raises(HostError, match=r"lacks .* acknowledged writes of a killed process"):
        opened(qemu(path))
    check_pages(opened(qemu(tmp_path / "moved")).top)
    opened(qemu(path))


def test_logged_writes_are_not_repeated_over_newer_data(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "disk"
    Engine(new(path)).kill_after_writing()
    fill(path, 200, "0", "1M")
    os.utime(path, (time.time() + 600, time.time() + 600))
    with pytest.raises(
        HostError, match=r"has been changed after the 22 writes .*; remove that file"
    ) as error:
        opened(qemu(path))
    log = next(word for word in str(error.value).split() if "qemu-log" in word).rstrip(";")
    Path(log).unlink()
    assert read(opened(qemu(path)).top, 0, 4) == bytes([200]) * 4


def test_missing_programs_and_packages_are_named(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "disk")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        expected = (
            "handler qemu needs qemu-img and qemu-storage-daemon; install qemu-system-common qemu-utils"
        )
        with pytest.raises(HostError, match=expected):
            opened(qemu(path))
    monkeypatch.setitem(sys.modules, "nbd", None)
    with pytest.raises(
        HostError, match="handler qemu needs the Python package libnbd; install python3-libnbd"
    ):
        opened(qemu(path))
