from pathlib import Path

import pytest

from tests.handlers.qemu.images import NEEDS, forget_backing_format, make, run
from vscsihba.errors import HostError, InUseError, NoSuchFileError, UsageError
from vscsihba.handlers.qemu.image import examine, failure, find_format

pytestmark = NEEDS

FORMATS = ["qcow2", "vmdk", "vhdx", "vdi", "vpc", "qed", "qcow", "parallels"]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_format_is_recognised(tmp_path: Path, format_: str) -> None:
    path = make(tmp_path / "image", "4M", format=format_)
    assert find_format(str(path)) == format_
    info = examine(str(path), None)
    assert (info.format, info.encrypted, info.in_place) == (format_, False, True)
    assert info.size >= 4 << 20
    assert info.zeroes == (format_ == "qcow2")


def test_a_luks_image_is_recognised(tmp_path: Path) -> None:
    key = ("--object", "secret,id=key,data=secret", "-o", "key-secret=key,iter-time=100")
    path = make(tmp_path / "image", "1M", *key, format="luks")
    info = examine(str(path), None)
    assert (info.format, info.encrypted, info.size) == ("luks", True, 1 << 20)


def test_a_raw_image_is_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(4096))
    with pytest.raises(UsageError, match='no image format that can be recognised; use the handler "file"'):
        examine(str(path), None)
    assert examine(str(path), "raw").size == 4096


def test_an_image_of_this_project_belongs_to_its_handler(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"VSCSICOW".ljust(4096))
    with pytest.raises(UsageError, match='use the handler "cow"'):
        examine(str(path), None)


def test_an_old_qcow2_has_no_zero_clusters(tmp_path: Path) -> None:
    assert not examine(str(make(tmp_path / "image", "1M", "-o", "compat=0.10")), None).zeroes


def test_an_overlay_and_snapshots_keep_old_bytes(tmp_path: Path) -> None:
    base = make(tmp_path / "base")
    overlay = make(tmp_path / "overlay", "1M", "-b", base, "-F", "qcow2")
    assert not examine(str(overlay), None).in_place
    run("qemu-img", "snapshot", "-c", "one", base)
    assert not examine(str(base), None).in_place


def test_a_backing_file_of_unknown_format_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(1 << 20))
    overlay = make(tmp_path / "overlay", "1M", "-b", raw, "-F", "raw")
    forget_backing_format(overlay)
    with pytest.raises(UsageError, match=f"does not record the format of its backing file {raw}; .*-F raw"):
        examine(str(overlay), None)
    run("qemu-img", "rebase", "-u", "-b", raw, "-F", "raw", overlay)
    assert examine(str(overlay), None).size == 1 << 20


def test_a_backing_file_with_a_magic_number_needs_no_record(tmp_path: Path) -> None:
    base = make(tmp_path / "base")
    overlay = make(tmp_path / "overlay", "1M", "-b", base, "-F", "qcow2")
    forget_backing_format(overlay)
    assert examine(str(overlay), None).size == 1 << 20


@pytest.mark.parametrize("name", ["nbd://127.0.0.1:1/x", 'json:{"driver":"null-co"}', "null-co://"])
def test_a_backing_file_must_be_a_local_file(tmp_path: Path, name: str) -> None:
    overlay = make(tmp_path / "overlay", "1M", "-u", "-b", name, "-F", "raw")
    with pytest.raises(UsageError, match="is not a local file"):
        examine(str(overlay), None)


def test_a_chain_with_a_missing_file_names_it(tmp_path: Path) -> None:
    base = make(tmp_path / "base")
    middle = make(tmp_path / "middle", "1M", "-b", base, "-F", "qcow2")
    top = make(tmp_path / "top", "1M", "-b", middle, "-F", "qcow2")
    assert examine(str(top), None).size == 1 << 20
    base.unlink()
    with pytest.raises(UsageError, match=f"{middle}: its backing file {base} does not exist; restore it"):
        examine(str(top), None)


def test_an_image_of_another_format_is_named(tmp_path: Path) -> None:
    path = make(tmp_path / "image")
    with pytest.raises(UsageError, match='is an image of the format qcow2, not vmdk; correct its "format"'):
        examine(str(path), "vmdk")
    path.write_bytes(bytes(4096))
    with pytest.raises(HostError, match="Could not open"):
        examine(str(path), "vmdk")


def test_a_chain_that_is_a_ring_is_refused(tmp_path: Path) -> None:
    one = make(tmp_path / "one")
    make(tmp_path / "two", "1M", "-b", one, "-F", "qcow2")
    run("qemu-img", "rebase", "-u", "-b", tmp_path / "two", "-F", "qcow2", one)
    with pytest.raises(UsageError, match="more than 64 files"):
        examine(str(one), None)


def test_garbage_behind_a_magic_number_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"QFI\xfb\x00\x00\x00\x03" + b"\xff" * 8192)
    with pytest.raises(HostError) as error:
        examine(str(path), None)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFileError):
        examine(str(tmp_path / "nothing"), None)
    with pytest.raises(UsageError, match="is a directory"):
        examine(str(tmp_path), None)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ('Failed to get shared "write" lock', InUseError),
        ("Could not open 'x': No such file or directory", NoSuchFileError),
        ("Invalid password, cannot unlock any keyslot", UsageError),
        ("something else", HostError),
    ],
)
def test_messages_of_qemu(message: str, kind: type[Exception]) -> None:
    error = failure("/srv/x", message)
    assert type(error) is kind
    assert "/srv/x" in str(error)
