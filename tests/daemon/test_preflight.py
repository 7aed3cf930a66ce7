"""Checks of a document against this machine: a refusal has a place and a cure, and nothing is changed."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from vscsihba.config.load import read
from vscsihba.config.model import Document
from vscsihba.configfs import Hba, Lun, Observed, paths
from vscsihba.daemon import backing_files, holders
from vscsihba.daemon.preflight import check_machine
from vscsihba.errors import ConfigError, HostError
from vscsihba.handlers.file import path as file_path

MiB = 1 << 20
Make = Callable[..., Document]


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /sys, /proc and configfs beside the files of the test."""
    root = tmp_path / "machine"
    for name in ("CONFIGFS", "SYSFS", "PROC"):
        (root / name).mkdir(parents=True)
        monkeypatch.setattr(paths, name, root / name)
    return root


@pytest.fixture
def shown(tmp_path: Path) -> Make:
    """Create documents in which each backstore has a LUN."""

    def make(**backstores: object) -> Document:
        luns = [{"lun": number, "backstore": name} for number, name in enumerate(backstores)]
        value = {"version": 1, "backstores": backstores, "hbas": [{"id": 0, "luns": luns}]}
        return read(value, tmp_path)

    return make


def image(path: Path, size: int = MiB) -> Path:
    path.write_bytes(b"")
    os.truncate(path, size)
    return path


def refusal(document: Document, running: Document | None = None) -> str:
    """Return the text of the error that refuses a document."""
    with pytest.raises(ConfigError) as caught:
        check_machine(document, running or Document())
    assert caught.value.exit_code == 2
    assert caught.value.cure
    return str(caught.value)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_good_document_is_let_through_and_nothing_changes(tmp_path: Path, shown: Make) -> None:
    image(tmp_path / "a.img")
    key = tmp_path / "key"
    key.write_text("secret")
    key.chmod(0o600)
    document = shown(
        a="a.img",
        b={"handler": "file", "path": "new.img", "size": "1MiB"},
        c={"handler": "memory", "size": "1MiB"},
        d={"handler": "encrypt", "key_file": "key", "next": image(tmp_path / "d.img").name},
    )
    before = snapshot(tmp_path)
    check_machine(document, Document())
    assert snapshot(tmp_path) == before


def test_missing_file_is_refused_where_it_is_named(tmp_path: Path, shown: Make) -> None:
    said = refusal(shown(a={"handler": "stats", "next": {"handler": "file", "path": "none.img"}}))
    assert said == f'$.backstores.a.next: {tmp_path}/none.img: no such file; create it, or set its "size"'


def test_backstore_that_no_lun_shows_is_not_looked_at(tmp_path: Path) -> None:
    document = read({"version": 1, "backstores": {"a": "none.img"}}, tmp_path)
    check_machine(document, Document())


def test_disks_that_stay_are_not_checked(tmp_path: Path, shown: Make) -> None:
    running = shown(a="gone.img")
    check_machine(running, running)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_key_that_others_can_read_is_refused(tmp_path: Path, shown: Make, mode: int) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    key.chmod(mode)
    stack = {"handler": "encrypt", "key_file": "key", "next": image(tmp_path / "a.img").name}
    assert refusal(shown(a=stack)) == (
        f"$.backstores.a.key_file: others can read {key} (mode {mode:04o}); chmod 600 {key}"
    )


def test_missing_key_is_an_error_with_its_place(tmp_path: Path, shown: Make) -> None:
    stack = {"handler": "encrypt", "key_file": "key", "next": image(tmp_path / "a.img").name}
    with pytest.raises(ConfigError, match=r"\$\.backstores\.a\.key_file: .*/key: No such file"):
        check_machine(shown(a=stack), Document())


# One file, two disks.


def same(tmp_path: Path, place: str, path: str, other_place: str, other: str) -> str:
    return (
        f"$.backstores.{place}: {tmp_path}/{path} is the same as {tmp_path}/{other} at "
        f"$.backstores.{other_place}; give each of them storage of its own"
    )


def test_one_file_cannot_be_two_disks(tmp_path: Path, shown: Make) -> None:
    image(tmp_path / "a.img")
    assert refusal(shown(a="a.img", b="a.img")) == same(tmp_path, "b.path", "a.img", "a.path", "a.img")


def test_symbolic_link_is_seen_through(tmp_path: Path, shown: Make) -> None:
    image(tmp_path / "a.img")
    (tmp_path / "link").symlink_to("a.img")
    stack = {"handler": "log", "next": {"handler": "stats", "next": "link"}}
    assert refusal(shown(a="a.img", b=stack)) == same(tmp_path, "b.next.next.path", "link", "a.path", "a.img")


def test_hard_link_is_seen_through(tmp_path: Path, shown: Make) -> None:
    (tmp_path / "hard").hardlink_to(image(tmp_path / "a.img"))
    assert "is the same as" in refusal(shown(a="a.img", b="hard"))


def test_folder_that_is_a_link_is_seen_through_before_the_file_is_made(tmp_path: Path, shown: Make) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").symlink_to("folder")
    stacks = [{"handler": "file", "path": f"{name}/new.img", "size": "1MiB"} for name in ("folder", "other")]
    assert "is the same as" in refusal(shown(a=stacks[0], b=stacks[1]))


def test_leg_of_a_mirror_is_seen(tmp_path: Path, shown: Make) -> None:
    image(tmp_path / "a.img")
    image(tmp_path / "b.img")
    mirror = {"handler": "mirror", "path": "m", "create": True, "legs": ["b.img", "a.img"]}
    assert refusal(shown(a="a.img", b=mirror)) == same(tmp_path, "b.legs[1].path", "a.img", "a.path", "a.img")


def test_layer_and_the_one_below_cannot_have_one_file(tmp_path: Path, shown: Make) -> None:
    image(tmp_path / "a.img")
    stack = {"handler": "cow", "path": "a.img", "next": "a.img"}
    assert "is the same as" in refusal(shown(a=stack))


def test_disks_that_only_read_may_share_a_file(tmp_path: Path, shown: Make) -> None:
    image(tmp_path / "a.img")
    reads = {"handler": "file", "path": "a.img", "read_only": True}
    check_machine(shown(a=reads, b={"handler": "readonly", "next": "a.img"}), Document())
    assert "is the same as" in refusal(shown(a=reads, b="a.img"))


def test_file_of_a_disk_that_stays_cannot_be_another_disk(tmp_path: Path, shown: Make) -> None:
    image(tmp_path / "a.img")
    said = refusal(shown(a="a.img", b="a.img"), shown(b="a.img"))
    assert re.match(r"\$\.backstores\.a\.path: .* is the same as .* at \$\.backstores\.b\.path; ", said), (
        "the new"
    )


# Somebody else has it.


def test_file_that_is_locked_is_refused(tmp_path: Path, shown: Make) -> None:
    path = image(tmp_path / "a.img")
    fd = file_path.claim(str(path), read_only=False, shared=False)
    try:
        assert refusal(shown(a="a.img")) == (
            f"$.backstores.a.path: {path} is in use: another program has it open as a disk; release it first"
        )
        check_machine(shown(b="a.img"), shown(a="a.img"))  # it is our own disk that has it, and goes
    finally:
        os.close(fd)
    check_machine(shown(a="a.img"), Document())


def test_file_that_others_read_may_be_read(tmp_path: Path, shown: Make) -> None:
    path = image(tmp_path / "a.img")
    fd = file_path.claim(str(path), read_only=True, shared=True)
    try:
        check_machine(shown(a={"handler": "readonly", "next": "a.img"}), Document())
        assert "another program" in refusal(shown(a="a.img"))
    finally:
        os.close(fd)


def test_file_behind_a_loop_device_is_refused(tmp_path: Path, machine: Path, shown: Make) -> None:
    path = image(tmp_path / "a.img")
    (machine / "SYSFS/block/loop3/loop").mkdir(parents=True)
    (machine / "SYSFS/block/loop3/loop/backing_file").write_text(f"{path}\n")
    assert f"{path} is in use: it is behind /dev/loop3" in refusal(shown(a="a.img"))


def test_swap_file_is_refused(tmp_path: Path, machine: Path, shown: Make) -> None:
    path = image(tmp_path / "a b.img")
    escaped = str(path).replace(" ", "\\040")
    (machine / "PROC/swaps").write_text(f"Filename Type Size Used Priority\n{escaped} file 1 0 -2\n")
    assert f"{path} is in use: it is used as swap" in refusal(shown(a="a b.img"))


def test_file_of_another_target_is_refused(tmp_path: Path, machine: Path, shown: Make) -> None:
    path = image(tmp_path / "a.img")
    backstore = machine / "CONFIGFS/target/core/fileio_0/disk1"
    backstore.mkdir(parents=True)
    (backstore / "udev_path").write_text(f"{path}\n")
    assert "it is a backstore of another target (fileio_0/disk1)" in refusal(shown(a="a.img"))


@pytest.fixture
def sda(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk sda with a partition sda1 (8:0, 8:1), as keys and in /sys."""
    disk = machine / "SYSFS/devices/sda"
    (disk / "sda1").mkdir(parents=True)
    (disk / "dev").write_text("8:0\n")
    (disk / "size").write_text("2048\n")
    (disk / "sda1/dev").write_text("8:1\n")
    (disk / "sda1/size").write_text("1024\n")
    (disk / "sda1/partition").write_text("1\n")
    for name, number, target in (("sda", "8:0", disk), ("sda1", "8:1", disk / "sda1")):
        for folder, link in (("dev/block", number), ("class/block", name)):
            (machine / "SYSFS" / folder).mkdir(parents=True, exist_ok=True)
            (machine / "SYSFS" / folder / link).symlink_to(target)
    numbers = {"/dev/sda": os.makedev(8, 0), "/dev/sda1": os.makedev(8, 1)}
    true_key_of = holders.key_of

    def key_of(path: Path) -> holders.Key:
        number = numbers.get(str(path))
        return true_key_of(path) if number is None else ("block", number, 0)

    monkeypatch.setattr(holders, "key_of", key_of)
    monkeypatch.setattr(backing_files, "key_of", key_of)
    return disk


def test_mounted_disk_is_refused(machine: Path, sda: Path, shown: Make) -> None:
    (machine / "PROC/self").mkdir()
    (machine / "PROC/self/mountinfo").write_text("30 1 8:1 / /srv rw - ext4 /dev/sda1 rw\n")
    said = "is in use: /dev/sda1 is mounted on /srv; release it first"
    assert refusal(shown(a="/dev/sda")) == f"$.backstores.a.path: /dev/sda {said}"
    assert refusal(shown(a="/dev/sda1")) == f"$.backstores.a.path: /dev/sda1 {said}"


def test_partition_and_its_disk_are_not_two_disks(sda: Path, shown: Make) -> None:
    assert refusal(shown(a="/dev/sda1", b="/dev/sda")) == (
        "$.backstores.a.path: /dev/sda1 is a part of /dev/sda at $.backstores.b.path; "
        "give each of them storage of its own"
    )


def test_disk_of_our_own_is_refused(sda: Path, shown: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Observed(hbas={0: Hba(0, luns={3: Lun(3, "vscsihba0-lun3", disk=Path("/dev/sda"))})})
    monkeypatch.setattr("vscsihba.configfs.observer.observe", lambda: found)
    assert refusal(shown(a="/dev/sda1")) == (
        "$.backstores.a.path: /dev/sda1 is LUN 3 of HBA 0 itself: the disk would be stored on itself; "
        "name the storage behind that LUN"
    )


# Sizes.


def test_file_that_is_larger_is_refused(tmp_path: Path, shown: Make) -> None:
    path = image(tmp_path / "a.img", 2 * MiB)
    assert refusal(shown(a={"handler": "file", "path": "a.img", "size": "1MiB"})) == (
        f"$.backstores.a.size: {path} has 2MiB already, and a disk cannot shrink; "
        'use "size": "2MiB", or leave it out'
    )
    check_machine(shown(a={"handler": "file", "path": "a.img", "size": "1MiB", "create": True}), Document())


def test_device_that_is_larger_is_refused(sda: Path, shown: Make) -> None:
    said = refusal(shown(a={"handler": "file", "path": "/dev/sda1", "size": "256KiB"}))
    assert said.startswith("$.backstores.a.size: /dev/sda1 has 512KiB already")


def test_file_that_its_file_system_can_never_hold_is_refused(tmp_path: Path, shown: Make) -> None:
    stack = {"handler": "stats", "next": {"handler": "file", "path": "a.img", "size": "6EiB"}}
    said = refusal(shown(a=stack))
    assert said.startswith(
        f"$.backstores.a.next.size: 6EiB is more than the size of the file system of {tmp_path}/a.img ("
    )
    assert said.endswith("; choose a smaller size, or another file system")
    image(tmp_path / "a.img")
    assert refusal(shown(a=stack)) == said


def test_file_that_cannot_be_set_aside_is_refused(tmp_path: Path, shown: Make) -> None:
    system = os.statvfs(tmp_path)
    wanted = (system.f_bavail * system.f_frsize // MiB + 1024) * MiB
    stack = {"handler": "file", "path": "a.img", "size": wanted, "preallocation": "reserve"}
    said = refusal(shown(a=stack))
    assert said.startswith("$.backstores.a.size: ")


def test_host_error_keeps_its_kind_and_gets_a_place(
    tmp_path: Path, shown: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(_handler: object) -> None:
        raise HostError("the package is missing", cure="install it")

    monkeypatch.setattr("vscsihba.handlers.memory.MemoryHandler.check", lacking)
    document = shown(a={"handler": "stats", "next": {"handler": "memory", "size": "1MiB"}})
    with pytest.raises(HostError) as caught:
        check_machine(document, Document())
    assert str(caught.value) == "$.backstores.a.next: the package is missing; install it"
