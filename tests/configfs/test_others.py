"""What is not ours is seen, and what is ours is not among it."""

from pathlib import Path

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba.configfs import BackstoreSpec, create_backstore, create_hba, link_lun, wwn_of
from vscsihba.configfs.others import Other, others


def make_ours() -> None:
    create_backstore(BackstoreSpec("vscsihba0-lun0", size=1 << 20, serial="s"))
    create_hba(0)
    link_lun(0, 0, "vscsihba0-lun0")


def test_nothing_is_there_without_modules(kernel: FakeConfigfs) -> None:
    assert others() == []


def test_what_is_ours_is_not_shown(kernel: FakeConfigfs) -> None:
    make_ours()
    assert others() == []


def test_backstores_of_others_are_shown_with_what_they_are_made_of(kernel: FakeConfigfs) -> None:
    make_ours()
    kernel.foreign_backstore("disk1", 3, "file/srv/x.img")
    (kernel.core / "user_3/disk1/enable").write_text("1\n")
    kernel.foreign_backstore("half", 4, "")
    assert others() == [
        Other("backstore", "user_3/disk1", "file/srv/x.img"),
        Other("backstore", "user_4/half", "not enabled"),
    ]


def test_targets_of_others_are_shown_of_every_fabric(kernel: FakeConfigfs) -> None:
    theirs = kernel.foreign_backstore()
    (kernel.core / "user_7/other/enable").write_text("1\n")
    kernel.put_behind(wwn_of(9), 0, theirs)
    kernel.put_behind("naa.5001405000000001", 0, theirs)
    folder: Path = kernel.configfs / "target/iscsi"
    (folder / "discovery_auth").mkdir(parents=True)
    (folder / "iqn.2003-01.org:x/tpgt_1/lun").mkdir(parents=True)
    assert [other for other in others() if other.kind == "target"] == [
        Other("target", "iscsi/iqn.2003-01.org:x", "0 LUNs"),
        Other("target", "loopback/naa.5001405000000001", "1 LUN"),
        Other("target", f"loopback/{wwn_of(9)}", "1 LUN"),
    ]
