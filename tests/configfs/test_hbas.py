import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba.configfs import (
    BackstoreSpec,
    Lun,
    backstore_name,
    clear_hba,
    config_of,
    create_backstore,
    create_hba,
    default_queue_depth,
    delete_hba,
    find_lun,
    link_lun,
    observe,
    rescan,
    set_command_timeout,
    set_queue_depth,
    unlink_lun,
    users,
    users_of_lun,
    wwn_of,
)
from vscsihba.configfs.names import initiator_of
from vscsihba.errors import HostError, InUseError, UsageError


def backstore(lun: int = 0, config: str = "") -> str:
    spec = BackstoreSpec(backstore_name(0, lun), 1 << 20, f"serial-{lun}", config)
    create_backstore(spec)
    return spec.name


def test_create_hba_makes_a_target_with_a_nexus(kernel: FakeConfigfs) -> None:
    assert create_hba(7) == 6
    group = kernel.loopback / "naa.50014055c51ba007/tpgt_1"
    assert (group / "nexus").read_text() == f"{initiator_of(group.parent.name)}\n"


def test_create_hba_twice_is_the_same_hba(kernel: FakeConfigfs) -> None:
    assert create_hba(0) == create_hba(0)


def test_create_hba_completes_an_incomplete_one(kernel: FakeConfigfs) -> None:
    (kernel.loopback / wwn_of(0)).mkdir()
    assert not observe().hbas[0].complete
    create_hba(0)
    assert observe().hbas[0].complete


def test_create_hba_says_so_when_the_kernel_refuses(kernel: FakeConfigfs) -> None:
    kernel.refused = "nexus"
    with pytest.raises(HostError, match=r"cannot create target naa\.50014055c51ba000: Invalid argument"):
        create_hba(0)


@pytest.mark.parametrize("hba_id", [-1, 256])
def test_create_hba_refuses_ids_out_of_range(hba_id: int) -> None:
    with pytest.raises(UsageError, match="out of range"):
        create_hba(hba_id)


def test_link_lun_shows_the_scsi_device(kernel: FakeConfigfs) -> None:
    create_hba(0)
    link_lun(0, 3, backstore(3))
    (lun,) = observe().hbas[0].luns.values()
    assert (lun.number, lun.backstore, lun.address) == (3, "vscsihba0-lun3", "6:0:1:3")
    assert (lun.disk, lun.generic) == (kernel.dev / "sdd", kernel.dev / "sg3")


def test_link_lun_refuses_a_number_that_is_taken(kernel: FakeConfigfs) -> None:
    create_hba(0)
    link_lun(0, 0, backstore())
    with pytest.raises(InUseError, match="LUN 0 of HBA 0 exists already"):
        link_lun(0, 0, backstore(1))


def test_link_lun_without_hba_or_backstore_says_so(kernel: FakeConfigfs) -> None:
    with pytest.raises(HostError, match="no HBA 0"):
        link_lun(0, 0, "vscsihba0-lun0")
    create_hba(0)
    with pytest.raises(HostError, match="no backstore vscsihba0-lun0"):
        link_lun(0, 0, "vscsihba0-lun0")
    assert observe().hbas[0].luns == {}


def test_link_lun_without_an_answer_is_undone(kernel: FakeConfigfs) -> None:
    create_hba(0)
    kernel.answered = False
    with pytest.raises(HostError, match=r"found no device.*being served"):
        link_lun(0, 0, backstore())
    assert observe().hbas[0].luns == {}


def test_unlink_lun_keeps_the_other_luns(kernel: FakeConfigfs) -> None:
    create_hba(0)
    for lun in range(3):
        link_lun(0, lun, backstore(lun))
    unlink_lun(0, 1)
    assert list(observe().hbas[0].luns) == [0, 2]


def test_find_lun_looks_at_one_lun_only(kernel: FakeConfigfs) -> None:
    create_hba(0)
    name = backstore(1)
    link_lun(0, 1, name)
    lun = find_lun(0, 1)
    assert lun == observe().hbas[0].luns[1]
    assert lun is not None
    assert (lun.backstore, lun.complete) == (name, True)
    assert find_lun(0, 2) is None
    assert find_lun(1, 0) is None


def test_users_of_a_lun_are_those_of_its_disk(kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> None:
    create_hba(0)
    link_lun(0, 1, backstore(1))
    there = find_lun(0, 1)
    assert there is not None
    monkeypatch.setattr(users, "users_of", lambda disk: [f"{disk} is mounted on /mnt"])
    assert users_of_lun(0, 1) == [f"{there.disk} is mounted on /mnt"]
    assert users_of_lun(0, 2) == []


def test_unlink_lun_that_is_not_there_says_so(kernel: FakeConfigfs) -> None:
    create_hba(0)
    with pytest.raises(HostError, match="HBA 0 has no LUN 5"):
        unlink_lun(0, 5)


def test_unlink_lun_without_server_stops_everything_first(kernel: FakeConfigfs) -> None:
    create_hba(0)
    name = backstore()
    link_lun(0, 0, name)
    unlink_lun(0, 0, served=False)
    assert observe().hbas[0].luns == {}
    action = kernel.core / "user_0" / name / "action"
    assert (action / "block_dev").read_text() == "1\n"
    assert (action / "reset_ring").read_text() == "1\n"


def test_delete_hba_refuses_while_it_has_luns(kernel: FakeConfigfs) -> None:
    create_hba(0)
    link_lun(0, 0, backstore())
    with pytest.raises(InUseError, match="still has 1 LUNs"):
        delete_hba(0)
    unlink_lun(0, 0)
    delete_hba(0)
    assert observe().hbas == {}
    with pytest.raises(HostError, match="no HBA 0"):
        delete_hba(0)


def test_foreign_target_is_never_changed(kernel: FakeConfigfs) -> None:
    kernel.put_behind(wwn_of(0), 0, kernel.foreign_backstore())
    assert observe().foreign == {0}
    for touch in (
        lambda: create_hba(0),
        lambda: delete_hba(0),
        lambda: unlink_lun(0, 0),
        lambda: unlink_lun(0, 0, served=False),
        lambda: find_lun(0, 0),
        lambda: clear_hba(0),
    ):
        with pytest.raises(InUseError, match="belongs to another program"):
            touch()
    assert (kernel.loopback / wwn_of(0) / "tpgt_1/lun/lun_0/link").is_symlink()


def test_target_with_a_second_portal_group_is_foreign(kernel: FakeConfigfs) -> None:
    create_hba(0)
    (kernel.loopback / wwn_of(0) / "tpgt_0").mkdir()
    assert observe().foreign == {0}


def test_targets_with_other_wwns_are_skipped(kernel: FakeConfigfs) -> None:
    (kernel.loopback / "naa.5001405000000000").mkdir()
    kernel.foreign_backstore()
    assert observe() == type(observe())()


def test_scsi_device_controls(kernel: FakeConfigfs) -> None:
    create_hba(0)
    link_lun(0, 0, backstore())
    device = kernel.sysfs / "bus/scsi/devices/6:0:1:0"
    set_queue_depth("6:0:1:0", 64)
    set_command_timeout("6:0:1:0", 90)
    rescan("6:0:1:0")
    assert (device / "queue_depth").read_text().split()[0] == "64"
    assert (device / "timeout").read_text().split()[0] == "90"
    assert default_queue_depth("6:0:1:0") == 1024
    assert default_queue_depth("9:0:1:0") is None
    assert (device / "rescan").read_text() == "1\n"
    with pytest.raises(HostError, match="9:0:1:0"):
        rescan("9:0:1:0")


def leave_behind(kernel: FakeConfigfs, luns: int = 2) -> None:
    create_hba(0)
    for lun in range(luns):
        link_lun(0, lun, backstore(lun))


def test_clear_hba_removes_leftovers(kernel: FakeConfigfs) -> None:
    leave_behind(kernel)
    other = kernel.foreign_backstore()
    removed = clear_hba(0)
    assert removed == ["HBA 0 with 2 LUNs", "backstore vscsihba0-lun0", "backstore vscsihba0-lun1"]
    assert observe().backstores == {}
    assert other.is_dir()
    assert clear_hba(0) == []


def test_a_lun_that_only_exports_show_is_found_and_cleared(kernel: FakeConfigfs) -> None:
    create_hba(0)
    name = backstore(5, config=config_of(0, 5, local=False))
    backstore(6)  # its creation was cut short before it was linked
    assert observe().hbas[0].luns == {5: Lun(5, name, local=False)}
    assert find_lun(0, 5) == Lun(5, name, local=False)
    assert find_lun(0, 6) is None
    unlink_lun(0, 5)
    assert observe().hbas[0].luns.keys() == {5}
    assert clear_hba(0, keep={5, 6}) == []
    assert clear_hba(0, keep={6}) == ["HBA 0 with 1 LUNs", "backstore vscsihba0-lun5"]
    assert (kernel.core / "user_1/vscsihba0-lun6").is_dir()


def test_clear_hba_keeps_the_luns_to_keep(kernel: FakeConfigfs) -> None:
    leave_behind(kernel)
    assert clear_hba(0, keep={1, 7}) == ["LUN 0 of HBA 0", "backstore vscsihba0-lun0"]
    assert list(observe().hbas[0].luns) == [1]
    assert list(observe().backstores) == ["vscsihba0-lun1"]
    assert clear_hba(0, keep={1}) == []
    assert clear_hba(0) == ["HBA 0 with 1 LUNs", "backstore vscsihba0-lun1"]


def test_clear_hba_removes_incomplete_objects(kernel: FakeConfigfs) -> None:
    (kernel.core / "user_3/vscsihba0-lun9").mkdir(parents=True)
    (kernel.loopback / wwn_of(0) / "tpgt_1/lun/lun_4").mkdir(parents=True)
    assert not observe().backstores["vscsihba0-lun9"].enabled
    clear_hba(0)
    assert observe() == type(observe())()


def test_clear_hba_keeps_the_backstores_of_other_hbas(kernel: FakeConfigfs) -> None:
    leave_behind(kernel)
    create_hba(1)
    link_lun(1, 0, "vscsihba0-lun0")
    clear_hba(0)
    assert list(observe().backstores) == ["vscsihba0-lun0"]


def test_clear_hba_refuses_while_a_ring_is_served(kernel: FakeConfigfs) -> None:
    leave_behind(kernel)
    process = kernel.proc / "4711"
    (process / "fd").mkdir(parents=True)
    (process / "comm").write_text("python\n")
    (process / "fd/9").symlink_to(kernel.dev / "uio1")
    with pytest.raises(InUseError, match=r"served by python \(pid 4711\)"):
        clear_hba(0)
    (process / "status").write_text("Name:\tpython\nSigPnd:\t0000000000000100\n")
    assert clear_hba(0)


def test_clear_hba_refuses_while_a_disk_is_mounted(kernel: FakeConfigfs) -> None:
    leave_behind(kernel)
    (kernel.sysfs / "class/block/sda").mkdir(parents=True)
    (kernel.proc / "self").mkdir()
    (kernel.proc / "self/mountinfo").write_text(f"1 2 8:0 / /srv rw - ext4 {kernel.dev}/sda rw\n")
    with pytest.raises(InUseError, match="sda is mounted on /srv"):
        clear_hba(0)
    assert clear_hba(0, force=True)
