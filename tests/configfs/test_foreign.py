"""Objects of other programs are listed, and objects of vscsihba are not among them."""

from pathlib import Path

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba.configfs import BackstoreSpec, create_backstore, create_hba, link_lun, wwn_of
from vscsihba.configfs.foreign import ForeignObject, foreign_objects


def make_lun() -> None:
    create_backstore(BackstoreSpec("vscsihba0-lun0", size=1 << 20, serial="s"))
    create_hba(0)
    link_lun(0, 0, "vscsihba0-lun0")


def test_nothing_is_listed_without_modules(kernel: FakeConfigfs) -> None:
    assert foreign_objects() == []


def test_objects_of_vscsihba_are_not_listed(kernel: FakeConfigfs) -> None:
    make_lun()
    assert foreign_objects() == []


def test_foreign_backstores_are_listed_with_their_storage(kernel: FakeConfigfs) -> None:
    make_lun()
    kernel.foreign_backstore("disk1", 3, "file/srv/x.img")
    (kernel.core / "user_3/disk1/enable").write_text("1\n")
    kernel.foreign_backstore("half", 4, "")
    assert foreign_objects() == [
        ForeignObject("backstore", "user_3/disk1", "file/srv/x.img"),
        ForeignObject("backstore", "user_4/half", "not enabled"),
    ]


def test_foreign_targets_of_every_fabric_are_listed(kernel: FakeConfigfs) -> None:
    theirs = kernel.foreign_backstore()
    (kernel.core / "user_7/other/enable").write_text("1\n")
    kernel.put_behind(wwn_of(9), 0, theirs)
    kernel.put_behind("naa.5001405000000001", 0, theirs)
    folder: Path = kernel.configfs / "target/iscsi"
    (folder / "discovery_auth").mkdir(parents=True)
    (folder / "iqn.2003-01.org:x/tpgt_1").mkdir(parents=True)
    assert [entry for entry in foreign_objects() if entry.kind == "target"] == [
        ForeignObject("target", "iscsi/iqn.2003-01.org:x", "0 LUNs"),
        ForeignObject("target", "loopback/naa.5001405000000001", "1 LUN"),
        ForeignObject("target", f"loopback/{wwn_of(9)}", "1 LUN"),
    ]
