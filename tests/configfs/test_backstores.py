from pathlib import Path

import pytest

from tests.configfs import fake_configfs
from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba.configfs import (
    BackstoreSpec,
    create_backstore,
    create_hba,
    delete_backstore,
    devices,
    find_backstore,
    link_lun,
    lio,
    observe,
    reset_ring,
    resize_backstore,
    set_attribute,
    set_block,
)
from vscsihba.errors import HostError, InUseError, UsageError

SPEC = BackstoreSpec("vscsihba0-lun0", 1 << 20, "serial-0", config="0/0")


def test_create_backstore_passes_every_setting(kernel: FakeConfigfs) -> None:
    made = create_backstore(SPEC)
    assert made.uio == kernel.dev / "uio0"
    wanted = {
        "dev_config": "vscsihba/0/0",
        "dev_size": str(1 << 20),
        "hw_block_size": "512",
        "hw_max_sectors": "2048",
        "nl_reply_supported": "-1",
        "max_data_area_mb": "1024",
        "data_pages_per_blk": "256",
        "cmd_ring_size_mb": "1",
        "cmd_time_out": "0",
        "qfull_time_out": "-1",
        "tmr_notification": "1",
    }
    assert {name: kernel.attribute(SPEC.name, name) for name in wanted} == wanted


def test_create_backstore_is_found_as_it_was_made(kernel: FakeConfigfs) -> None:
    made = create_backstore(SPEC)
    assert find_backstore(SPEC.name) == made
    assert observe().backstores == {SPEC.name: made}


def test_create_backstore_takes_the_lowest_free_index(kernel: FakeConfigfs) -> None:
    kernel.foreign_backstore(index=0)
    kernel.foreign_backstore(index=2)
    assert create_backstore(SPEC).index == 1


def test_create_backstore_tries_the_next_index_when_another_program_is_faster(
    kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lio.create_backstore

    def slower(name: str, index: int, **settings: object) -> None:
        if index == 0:
            kernel.foreign_backstore(index=0)
        real(name, index, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(lio, "create_backstore", slower)
    assert create_backstore(SPEC).index == 1


def test_create_backstore_refuses_a_second_of_that_name(kernel: FakeConfigfs) -> None:
    create_backstore(SPEC)
    with pytest.raises(InUseError, match="exists already"):
        create_backstore(SPEC)


@pytest.mark.parametrize("place", ["control", "enable", "vpd_unit_serial"])
def test_create_backstore_leaves_nothing_when_the_kernel_refuses(kernel: FakeConfigfs, place: str) -> None:
    kernel.refused = place
    with pytest.raises(HostError, match="cannot create backstore vscsihba0-lun0: Invalid argument"):
        create_backstore(SPEC)
    assert list(kernel.core.iterdir()) == []


def test_create_backstore_leaves_nothing_when_the_node_does_not_come(
    kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(name: str, index: int, *, timeout: float) -> Path:
        raise HostError("no node")

    monkeypatch.setattr(devices, "wait_for_uio", never)
    with pytest.raises(HostError, match="no node"):
        create_backstore(SPEC)
    assert list(kernel.core.iterdir()) == []


def test_create_backstore_leaves_nothing_when_interrupted(
    kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(name: str, index: int, *, timeout: float) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(devices, "wait_for_uio", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create_backstore(SPEC)
    assert list(kernel.core.iterdir()) == []


def test_create_backstore_without_attributes_of_newer_kernels(
    kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(fake_configfs.ATTRIBUTES, "tmr_notification")
    create_backstore(SPEC)
    assert find_backstore(SPEC.name).spec == SPEC


def test_create_backstore_restores_reservations(kernel: FakeConfigfs) -> None:
    saved = kernel.configfs.parent / "pr" / "aptpl_serial-0"
    saved.parent.mkdir()
    saved.write_text("PR_REG_START: 0\ninitiator_fabric=loopback\nsa_res_key=1\nPR_REG_END: 0\n")
    create_backstore(SPEC)
    written = kernel.core / "user_0" / SPEC.name / "pr/res_aptpl_metadata"
    assert written.read_text().strip() == "initiator_fabric=loopback,sa_res_key=1"


def test_delete_backstore_removes_its_hba_too(kernel: FakeConfigfs) -> None:
    create_backstore(SPEC)
    delete_backstore(SPEC.name)
    assert list(kernel.core.iterdir()) == []


def test_delete_backstore_refuses_while_a_lun_is_linked(kernel: FakeConfigfs) -> None:
    create_backstore(SPEC)
    create_hba(0)
    link_lun(0, 0, SPEC.name)
    with pytest.raises(InUseError, match="busy"):
        delete_backstore(SPEC.name)


def test_delete_backstore_refuses_a_foreign_one(kernel: FakeConfigfs) -> None:
    kernel.foreign_backstore("vscsihba-not-ours")
    with pytest.raises(InUseError, match="is not managed by vscsihba"):
        delete_backstore("vscsihba-not-ours")
    with pytest.raises(UsageError):
        delete_backstore("other")


def test_delete_backstore_says_that_there_is_none(kernel: FakeConfigfs) -> None:
    with pytest.raises(HostError, match="no backstore vscsihba9"):
        delete_backstore("vscsihba9")


def test_controls_write_what_the_kernel_reads(kernel: FakeConfigfs) -> None:
    create_backstore(SPEC)
    directory = kernel.core / "user_0" / SPEC.name
    resize_backstore(SPEC.name, 2 << 20)
    set_block(SPEC.name, blocked=True)
    reset_ring(SPEC.name)
    set_attribute(SPEC.name, "qfull_time_out", 7)
    written = ["control", "action/block_dev", "action/reset_ring", "attrib/qfull_time_out"]
    assert [(directory / name).read_text().split() for name in written] == [
        ["dev_size=2097152"],
        ["1"],
        ["1"],
        ["7"],
    ]


def test_set_attribute_names_a_missing_attribute(kernel: FakeConfigfs) -> None:
    create_backstore(SPEC)
    with pytest.raises(HostError, match="attrib/nonsense: No such file"):
        set_attribute(SPEC.name, "nonsense", 1)
