"""iSCSI targets in a configfs of files: made, changed and removed; a step that fails changes nothing."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba.configfs import (
    Acl,
    BackstoreSpec,
    Chap,
    IscsiTarget,
    Refusals,
    Reservation,
    Session,
    backstore_name,
    change_target,
    create_backstore,
    ending_sessions,
    find_target,
    iscsi,
    lio_iscsi,
    logins_wait,
    paths,
    portals_in_use,
    refusals_of,
    reservation_of,
    sessions_of,
)
from vscsihba.errors import HostError

NAME = "iqn.2026-11.example:store"
HOST, OTHER = "iqn.2026-11.example:host1", "iqn.2026-11.example:host2"
SMALL = IscsiTarget(NAME, frozenset({"127.0.0.1:3260"}), {0: "vscsihba0-lun0"}, {HOST: Acl({0: False})})
FULL = IscsiTarget(
    NAME,
    frozenset({"127.0.0.1:3260", "[::1]:3261"}),
    {0: "vscsihba0-lun1", 5: "vscsihba0-lun0"},
    {
        HOST: Acl(
            {0: True, 5: False},
            Chap("u", "secret-of-u1"),
            Chap("m", "secret-of-m1"),
            {"attrib/nopin_timeout": "5", "attrib/nopin_response_timeout": "7"},
        ),
        OTHER: Acl({5: True}, Chap("v", "secret-of-v1")),
    },
    settings={**SMALL.settings, "attrib/default_cmdsn_depth": "32", "param/DataDigest": "None"},
)
OPEN = IscsiTarget(NAME, frozenset({"[::1]:3260"}), {1: "vscsihba0-lun1"}, open=True, write_protected=False)
STANDBY = replace(SMALL, states={0: "standby"})
MIXED = replace(FULL, states={0: "unavailable", 5: "standby"})
VALUES = (SMALL, FULL, OPEN, STANDBY, MIXED)


@pytest.fixture
def lio(kernel: FakeConfigfs) -> FakeConfigfs:
    for lun in (0, 1):
        create_backstore(BackstoreSpec(backstore_name(0, lun), 1 << 20, f"serial-{lun}"))
    kernel.iscsi.mkdir()
    return kernel


@pytest.mark.parametrize("value", VALUES)
def test_a_target_is_found_as_it_was_made(lio: FakeConfigfs, value: IscsiTarget) -> None:
    assert find_target(NAME) is None
    change_target(None, value)
    assert find_target(NAME) == value
    assert (lio.iscsi / NAME / "tpgt_1/enable").read_text() == "1\n"
    assert portals_in_use() == value.portals
    change_target(value, None)
    assert list(lio.iscsi.iterdir()) == []
    assert groups(lio) == []


def groups(lio: FakeConfigfs) -> list[str]:
    """Return the ALUA port groups that are not the kernel's own."""
    found = [path.name for path in lio.core.glob("*/*/alua/*")]
    return [name for name in found if name != "default_tg_pt_gp"]


def test_a_path_of_another_state_has_a_port_group_of_its_own(lio: FakeConfigfs) -> None:
    change_target(None, STANDBY)
    (group,) = lio.core.glob(f"*/vscsihba0-lun0/alua/{NAME}.lun0")
    assert (group / "alua_access_state").read_text() == "2\n"
    assert (group / "tg_pt_gp_id").read_text() == "1\n"
    assert (lio.iscsi / NAME / "tpgt_1/lun/lun_0/alua_tg_pt_gp").read_text() == f"{NAME}.lun0\n"
    other = replace(STANDBY, name=f"{NAME}2", portals=frozenset({"127.0.0.1:3270"}))
    change_target(None, other)
    assert (group.parent / f"{other.name}.lun0" / "tg_pt_gp_id").read_text() == "2\n"
    change_target(STANDBY, SMALL)
    assert groups(lio) == [f"{other.name}.lun0"]
    (group.parent / f"{other.name}.lun0" / "alua_access_state").write_text("1\n")
    assert find_target(other.name) == replace(other, states={0: "1"}), "a state that no document asks for"


@pytest.mark.parametrize("before", VALUES)
@pytest.mark.parametrize("after", VALUES)
def test_a_target_becomes_any_other(lio: FakeConfigfs, before: IscsiTarget, after: IscsiTarget) -> None:
    change_target(None, before)
    change_target(before, after)
    assert find_target(NAME) == after


def test_authentication_is_asked_for_where_there_are_secrets(lio: FakeConfigfs) -> None:
    attribute = lio.iscsi / NAME / "tpgt_1/attrib/authentication"
    change_target(None, SMALL)
    assert attribute.read_text() == "0\n"
    change_target(SMALL, FULL)
    assert attribute.read_text() == "1\n"


def test_a_secret_is_in_no_text(lio: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "secret-of" not in repr(FULL)
    real = os.open

    def refuse(path: Any, *rest: Any, **options: Any) -> int:
        if Path(path).name == "password":
            raise OSError(22, "Invalid argument", str(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(HostError, match="auth/password: Invalid argument") as failed:
        change_target(None, FULL)
    assert "secret-of" not in str(failed.value)
    assert failed.value.__cause__ is None


def calls() -> Iterator[tuple[object, str]]:
    """Yield every function that changes something in the kernel, and the module in which it is looked up."""
    for name in ("create_target", "create_portal", "delete_portal", "link", "unlink"):
        yield lio_iscsi, name
    for name in ("create_acl", "delete_acl", "map_lun", "unmap_lun"):
        yield lio_iscsi, name
    yield paths, "write"
    yield paths, "make_directory"
    yield iscsi, "_set_chap"


class Refusing:
    """Counts the changes, and refuses one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.refused: int | None = None
        for module, name in calls():
            monkeypatch.setattr(module, name, self._counting(getattr(module, name)))

    def _counting(self, function: Callable[..., None]) -> Callable[..., None]:
        def counted(*args: Any, **kwargs: Any) -> None:
            self.count += 1
            if self.count - 1 == self.refused:
                raise HostError("refused")
            function(*args, **kwargs)

        return counted

    def at(self, number: int | None) -> None:
        self.count, self.refused = 0, number


@pytest.mark.parametrize("after", VALUES)
@pytest.mark.parametrize("before", [None, *VALUES])
def test_a_fault_at_any_step_changes_nothing(
    lio: FakeConfigfs, monkeypatch: pytest.MonkeyPatch, before: IscsiTarget | None, after: IscsiTarget
) -> None:
    refusing = Refusing(monkeypatch)
    change_target(None, before)
    refusing.at(None)
    change_target(before, after)
    steps = refusing.count
    change_target(after, before)
    assert steps > 0 or before == after
    for number in range(steps):
        refusing.at(number)
        with pytest.raises(HostError, match="refused"):
            change_target(before, after)
        assert find_target(NAME) == before, f"step {number}"
        refusing.at(None)


def test_a_target_that_was_cut_short_is_completed(lio: FakeConfigfs) -> None:
    change_target(None, replace(SMALL, luns={}, acls={}))
    (lio.iscsi / NAME / "tpgt_1/enable").write_text("0\n")
    found = find_target(NAME)
    change_target(found, SMALL)
    assert find_target(NAME) == SMALL
    assert (lio.iscsi / NAME / "tpgt_1/enable").read_text() == "1\n"


def test_settings_that_are_not_those_of_the_document_are_set_again(lio: FakeConfigfs) -> None:
    change_target(None, SMALL)
    attributes = lio.iscsi / NAME / "tpgt_1/attrib"
    for name in ("authentication", "cache_dynamic_acls"):
        (attributes / name).write_text("1\n")
    change_target(find_target(NAME), SMALL)
    assert (attributes / "authentication").read_text() == "0\n"
    assert (attributes / "cache_dynamic_acls").read_text() == "0\n"


def test_sessions_are_read_with_their_addresses(lio: FakeConfigfs) -> None:
    change_target(None, FULL)
    assert sessions_of(NAME) == []
    group = lio.iscsi / NAME / "tpgt_1"
    (group / "acls" / HOST / "info").write_text(
        f"InitiatorName: {HOST}\nInitiatorAlias: host\n"
        "LIO Session ID: 3   ISID: 0x00 02 3d 00 00 01  TSIH: 3  SessionType: Normal\n"
        "Session State: TARG_SESS_STATE_LOGGED_IN\n"
        "-[CmdSN Values]-\n"
        "----------------------[iSCSI Connections]-------------------------\n"
        "CID: 0  Connection State: TARG_CONN_STATE_LOGGED_IN\n"
        "   Address 192.0.2.4 TCP  StatSN: 0x0000002a\n"
    )
    (group / "dynamic_sessions").write_bytes(b"iqn.2026-11.example:any\0")
    assert sessions_of(NAME) == [
        Session("iqn.2026-11.example:any"),
        Session(HOST, ("192.0.2.4",)),
    ]


def test_a_session_whose_connection_has_gone_is_ending(lio: FakeConfigfs) -> None:
    change_target(None, FULL)
    assert ending_sessions(NAME) == frozenset()
    (lio.iscsi / NAME / "tpgt_1/acls" / OTHER / "info").write_text(
        f"InitiatorName: {OTHER}\nSession State: TARG_SESS_STATE_FAILED\n"
        "CID: 0  Connection State: TARG_CONN_STATE_CLEANUP_WAIT\n   Address 192.0.2.5 TCP  StatSN: 0x01\n"
    )
    assert ending_sessions(NAME) == {OTHER}


@pytest.mark.parametrize(("stat", "waits"), [("D", True), ("S", False)])
def test_a_login_thread_that_waits_is_found(lio: FakeConfigfs, stat: str, waits: bool) -> None:
    for pid, name, state in ((7, "iscsi_np", stat), (8, "iscsi_trx", "D"), (9, "a) D (b", "S")):
        (lio.proc / str(pid)).mkdir()
        (lio.proc / str(pid) / "stat").write_text(f"{pid} ({name}) {state} 2 0 0 0\n")
    assert logins_wait() == waits


def test_refused_logins_are_read_with_the_last_one(lio: FakeConfigfs) -> None:
    change_target(None, FULL)
    assert refusals_of(NAME) == Refusals(0)
    folder = lio.iscsi / NAME / "fabric_statistics"
    for name, text in (
        ("iscsi_login_stats/authorize_fails", "2"),
        ("iscsi_login_stats/authenticate_fails", "3"),
        ("iscsi_tgt_attr/last_fail_type", "5"),
        ("iscsi_tgt_attr/fail_intr_name", "iqn.2026-11.example:any"),
        ("iscsi_tgt_attr/fail_intr_addr", "192.0.2.9"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    assert refusals_of(NAME) == Refusals(5, "iqn.2026-11.example:any", "192.0.2.9")
    (folder / "iscsi_tgt_attr/last_fail_type").write_text("6\n")
    assert refusals_of(NAME) == Refusals(5)


def test_reservations_are_read(lio: FakeConfigfs) -> None:
    assert reservation_of(0, "vscsihba0-lun0") is None
    pr = lio.core / "user_0/vscsihba0-lun0/pr"
    (pr / "res_pr_registered_i_pts").write_text("SPC-3 PR Registrations:\nNone\n")
    (pr / "res_holder").write_text("No SPC-3 Reservation holder\n")
    assert reservation_of(0, "vscsihba0-lun0") is None
    (pr / "res_pr_registered_i_pts").write_text(
        "SPC-3 PR Registrations:\n"
        f"iSCSI Node: {HOST},i,0x00023d000001 Key: 0x000000000000000a PRgen: 0x00000000\n"
        "Loopback Node: naa.5001405000000001 Key: 0x000000000000000b PRgen: 0x00000001\n"
    )
    assert reservation_of(0, "vscsihba0-lun0") == Reservation((HOST, "naa.5001405000000001"))
    (pr / "res_holder").write_text(f"SPC-3 Reservation: iSCSI Initiator: {HOST},i,0x00023d000001\n")
    (pr / "res_pr_type").write_text("SPC-3 Reservation Type: Write Exclusive Access, Registrants Only\n")
    found = reservation_of(0, "vscsihba0-lun0")
    assert found is not None
    assert (found.holder, found.type) == (HOST, "Write Exclusive Access, Registrants Only")


@pytest.mark.parametrize("write_protected", [False, True])
def test_an_initiator_that_is_logged_in_gets_the_right_access_to_a_lun_that_comes_back(
    lio: FakeConfigfs, monkeypatch: pytest.MonkeyPatch, *, write_protected: bool
) -> None:
    """It keeps the access that it gets when the LUN is linked (core_tpg_add_node_to_devs)."""
    shown = replace(OPEN, write_protected=write_protected)
    change_target(None, shown)
    change_target(find_target(NAME), replace(shown, luns={}, write_protected=True))
    file = lio.iscsi / NAME / "tpgt_1/attrib/demo_mode_write_protect"
    link, found = lio_iscsi.link, []

    def linked(*args: Any, **kwargs: Any) -> None:
        found.append(file.read_text().strip())
        link(*args, **kwargs)

    monkeypatch.setattr(lio_iscsi, "link", linked)
    change_target(find_target(NAME), shown)
    assert found == [str(int(write_protected))]
    assert find_target(NAME) == shown
