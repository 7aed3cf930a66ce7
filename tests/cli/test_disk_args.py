"""The argument ``-files``, read into documents."""

from pathlib import Path

import pytest

from tests.handlers.samples import ONES
from vscsihba.cli.disk_args import DiskArgument, DiskOptions, read_disks, registry_of
from vscsihba.errors import UsageError
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import build


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that the words are relative to."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(
    text: str, options: DiskOptions | None = None, registry: Registry | None = None
) -> list[DiskArgument]:
    return read_disks(text, registry or Registry(), options or DiskOptions())


def document(text: str, options: DiskOptions | None = None) -> object:
    (disk,) = read(text, options)
    return disk.document


def plain(path: Path, **changed: object) -> dict[str, object]:
    block = {"block_size": 512, "physical_block_size": 512}
    return {"handler": "file", "path": str(path), **block, "read_only": False, **changed}


def test_plain_paths(here: Path) -> None:
    disks = read("a.img,/srv/b.img")
    assert [disk.document for disk in disks] == [plain(here / "a.img"), plain(Path("/srv/b.img"))]
    assert [disk.label for disk in disks] == ["a.img", "b.img"]
    assert [disk.word for disk in disks] == ["a.img", "/srv/b.img"]


def test_wishes_for_plain_paths(here: Path) -> None:
    options = DiskOptions(create=1 << 20, block_size=1024, physical_block_size=4096, read_only=False)
    blocks = {"block_size": 1024, "physical_block_size": 4096}
    assert document("a.img", options) == plain(here / "a.img", **blocks, create=True, size=1 << 20)
    (here / "a.img").touch()
    assert document("a.img", options) == plain(here / "a.img", **blocks)
    assert document("a.img", DiskOptions(block_size=4096)) == plain(
        here / "a.img", block_size=4096, physical_block_size=4096
    )


def test_a_stack_is_what_it_says_with_absolute_paths(here: Path) -> None:
    assert read("cow:o.cow;create=true|base.img,b.img") == [
        DiskArgument(
            word="cow:o.cow;create=true|base.img",
            label="cow:o.cow;create=true|base.img",
            document={
                "handler": "cow",
                "path": str(here / "o.cow"),
                "create": True,
                "next": plain(here / "base.img", read_only=True),
            },
            plain=str(here / "base.img"),
        ),
        DiskArgument("b.img", "b.img", plain(here / "b.img"), str(here / "b.img")),
    ]


def test_what_a_layer_in_between_makes_is_written(here: Path) -> None:
    made = document("readonly|encrypt:create=true;key_file=k|a.img")
    assert isinstance(made, dict)
    assert made["next"]["next"] == plain(here / "a.img")
    made = document("readonly|encrypt:key_file=k|a.img")
    assert isinstance(made, dict)
    assert made["next"]["next"] == plain(here / "a.img", read_only=True)


def test_commas_in_lists_belong_to_the_list() -> None:
    words = [disk.word for disk in read('log:verbs=["read","write"]|a.img,b.img,c[1].img')]
    assert words == ['log:verbs=["read","write"]|a.img', "b.img", "c[1].img"]


def test_read_only_puts_a_protection_on_top(here: Path) -> None:
    options = DiskOptions(read_only=True)
    assert document("a.img", options) == plain(here / "a.img", read_only=True)
    assert document("memory:1MiB", options) == {
        "handler": "readonly",
        "next": {"handler": "memory", "size": "1MiB"},
    }


def test_a_block_device_keeps_its_block_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_block_device", lambda path: str(path) == "/dev/nvme0n1")
    device = {"handler": "file", "path": "/dev/nvme0n1", "read_only": False}
    assert document("/dev/nvme0n1") == device
    assert document("/dev/nvme0n1", DiskOptions(block_size=512)) == {**device, "block_size": 512}
    assert document("/dev/nvme0n1", DiskOptions(physical_block_size=4096)) == {
        **device,
        "physical_block_size": 4096,
    }
    assert document("offset:1MiB|/dev/nvme0n1") == {"handler": "offset", "offset": "1MiB", "next": device}


def test_block_sizes_go_to_the_lowest_layer_that_says_nothing() -> None:
    options = DiskOptions(block_size=4096)
    assert document("log|memory:1MiB", options) == {
        "handler": "log",
        "next": {"handler": "memory", "size": "1MiB", "block_size": 4096},
    }
    assert document("memory:1MiB;block_size=512", options) == {
        "handler": "memory",
        "size": "1MiB",
        "block_size": 512,
    }


def test_every_leg_is_a_lowest_layer(here: Path) -> None:
    text = '{"handler": "split", "legs": ["a.img", {"handler": "memory", "size": "1MiB"}]}'
    assert document(text, DiskOptions(block_size=4096, create=1 << 20)) == {
        "handler": "split",
        "legs": [
            plain(here / "a.img", block_size=4096, physical_block_size=4096, create=True, size=1 << 20),
            {"handler": "memory", "size": "1MiB", "block_size": 4096},
        ],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "the handler is missing"),
        ('{"handler": 5, "next": "/a"}', "the handler is missing"),
        ('{"handler": "readonly", "next": 5}', "expected a path or an object"),
        ('{"handler": "split", "legs": [5]}', "expected a path or an object"),
        ('{"handler": "split", "legs": 5}', "expected a list"),
        ('{"handler": "file", "path": 5}', "it cannot be 5; use a path"),
        ('{"handler": "mirror", "path": "m", "legs": ["/a"], "next": "/b"}', "is not a filter"),
    ],
)
def test_a_document_that_cannot_be_meant_is_left_for_building_to_tell(text: str, message: str) -> None:
    (disk,) = read(text, DiskOptions(create=1 << 20))
    with pytest.raises(UsageError, match=message):
        build(disk.document)


def test_a_block_size_that_the_lowest_layer_cannot_have() -> None:
    with pytest.raises(UsageError, match="memory has no option 'physical_block_size'"):
        read("memory:1MiB", DiskOptions(physical_block_size=4096))


@pytest.mark.parametrize("text", ["", "a.img,", ",a.img", "a.img,,b.img", "memory:1MiB,"])
def test_an_empty_word(text: str) -> None:
    with pytest.raises(UsageError, match="empty file name"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "a.img,a.img",
        "a.img,b.img,./a.img",
        "a.img,offset:1MiB|a.img",
        "cow:o.cow|a.img,cow:o.cow|a.img",
        "cow:o.cow|a.img,a.img",
        "readonly|file:a.img,cow:o.cow|a.img",
        "cow:a.img|a.img",
    ],
)
def test_a_file_that_two_would_write(text: str) -> None:
    with pytest.raises(UsageError, match="is given twice"):
        read(text)


@pytest.mark.parametrize("read_only", [False, True])
def test_one_file_under_two_names(here: Path, *, read_only: bool) -> None:
    (here / "a.img").touch()
    (here / "b.img").symlink_to("a.img")
    with pytest.raises(UsageError, match=r"b\.img is given twice, also as a\.img"):
        read("a.img,b.img", DiskOptions(read_only=read_only))


@pytest.mark.parametrize(
    "text",
    [
        "cow:o.cow|a.img,cow:p.cow|a.img",
        "cow:o.cow|offset:1MiB|a.img,cow:p.cow|a.img",
        "readonly|a.img,cow:p.cow|file:a.img;read_only=true",
        "encrypt:key_file=k|a.img,encrypt:key_file=k|b.img",
        "memory:1MiB,memory:1MiB",
    ],
)
def test_what_several_may_share(text: str) -> None:
    assert len(read(text)) == 2


def test_a_stack_is_found_by_another_process_in_another_directory(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "ones.py").write_text(ONES)
    registry = registry_of(["ones.py"])
    disks = read("ones:,readonly|./ones.py:", registry=registry)
    assert [disk.document for disk in disks] == [
        {"handler": f"{here}/ones.py:ones"},
        {"handler": "readonly", "next": {"handler": f"{here}/ones.py"}},
    ]
    monkeypatch.chdir("/")
    for disk in disks:
        with build(disk.document) as opened:
            room = bytearray(4)
            opened.read(0, [memoryview(room)])
            assert room == b"\1\1\1\1"
