"""Exports of the service, with targets that are a dictionary instead of the kernel's."""

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from tests.daemon.fake_targets import Targets
from vscsihba.config.export import Export
from vscsihba.config.load import read
from vscsihba.config.model import Document
from vscsihba.configfs import Acl, Chap, IscsiTarget, Session
from vscsihba.daemon import exports as exports_module
from vscsihba.daemon.export_checks import check_exports
from vscsihba.daemon.exports import TRANSPORTS, Exports
from vscsihba.errors import ConfigError, HostError, InUseError

NAME = "iqn.2026-11.example:store"
HOST, OTHER = "iqn.2026-11.example:host1", "iqn.2026-11.example:host2"
PORTAL = "127.0.0.1:3260"


def document(**export: Any) -> Document:
    """Return a document with an export of two disks."""
    whole = {
        "transport": "iscsi",
        "name": NAME,
        "portals": [PORTAL],
        "initiators": [{"name": HOST}],
        "luns": [{"lun": 0, "backstore": "a"}, {"lun": 1, "backstore": "b", "read_only": True}],
        **export,
    }
    return read(
        {
            "version": 1,
            "backstores": {name: {"handler": "memory", "size": "1MiB"} for name in "ab"},
            "hbas": [{"id": 0, "luns": [{"lun": 3, "backstore": "a"}, {"lun": 4, "backstore": "b"}]}],
            "exports": [whole],
        },
        Path("/"),
    )


def the(whole: Document) -> Export:
    (export,) = whole.exports
    return export


def secret(path: Path, text: str = "secret-of-u1", mode: int = 0o600) -> str:
    path.write_text(f"{text}\nsecond line\n")
    path.chmod(mode)
    return str(path)


@pytest.fixture
def kernel() -> Targets:
    targets = Targets()
    targets.backstores = {"vscsihba0-lun3", "vscsihba0-lun4"}
    return targets


@pytest.fixture
def exports(kernel: Targets) -> Exports:
    return Exports({"iscsi": kernel})


def test_every_transport_of_a_document_has_targets() -> None:
    (field,) = (field for field in msgspec.structs.fields(Export) if field.name == "transport")
    assert set(get_args(get_args(field.type)[0])) == TRANSPORTS.keys()


def test_an_export_becomes_a_target(exports: Exports, kernel: Targets, tmp_path: Path) -> None:
    entry = {"name": HOST, "user": "u", "password_file": secret(tmp_path / "u"), "luns": [1]}
    whole = document(initiators=[entry], cmdsn_depth=32, data_digest="CRC32C")
    exports.add(the(whole), whole)
    target = kernel.found[NAME]
    assert target.portals == {PORTAL}
    assert target.luns == {0: "vscsihba0-lun3", 1: "vscsihba0-lun4"}
    assert target.acls == {HOST: Acl({1: True}, Chap("u", "secret-of-u1"))}
    assert target.files["attrib/default_cmdsn_depth"] == "32"
    assert target.files["attrib/authentication"] == "1"
    assert target.files["param/DataDigest"] == "CRC32C"
    assert target.files["param/HeaderDigest"] == "CRC32C,None"


@pytest.mark.parametrize(("read_only", "protected"), [(None, "1"), (True, "1"), (False, "0")])
def test_an_open_export_is_read_only_unless_it_says_otherwise(
    exports: Exports, kernel: Targets, read_only: bool | None, protected: str
) -> None:
    lun = {"lun": 0, "backstore": "a"} | ({} if read_only is None else {"read_only": read_only})
    whole = document(open=True, initiators=[], luns=[lun])
    exports.add(the(whole), whole)
    files = kernel.found[NAME].files
    assert (files["attrib/generate_node_acls"], files["attrib/demo_mode_write_protect"]) == ("1", protected)


def test_a_target_of_another_program_is_left_alone(exports: Exports, kernel: Targets) -> None:
    kernel.found[NAME] = theirs = IscsiTarget(NAME)
    with pytest.raises(InUseError, match=f"another program has created the target {NAME}"):
        exports.add(the(document()), document())
    assert kernel.found == {NAME: theirs}


def test_a_restart_makes_what_is_missing_and_removes_what_was_cut_off(
    exports: Exports, kernel: Targets
) -> None:
    other = "iqn.2026-11.example:other"
    kernel.found[other] = IscsiTarget(other)
    exports.resume(document(), document(name=other))
    assert kernel.found.keys() == {NAME}
    before = kernel.changed
    exports.resume(document(), Document())
    assert kernel.changed == before, "there was nothing to do"


def test_a_lun_that_is_not_served_is_added_later_and_the_others_do_not_wait(
    exports: Exports, kernel: Targets
) -> None:
    kernel.backstores = {"vscsihba0-lun3"}
    exports.resume(document(), Document())
    assert kernel.found[NAME].luns == {0: "vscsihba0-lun3"}
    assert kernel.found[NAME].acls == {HOST: Acl({0: False})}
    (shown,) = exports.status(document())
    assert shown["state"] == "failing: LUN 1 is not there, since its disk is not served"
    assert [lun["state"] for lun in shown["luns"]] == ["running", "missing"]
    exports.retry(document())
    assert list(exports.failures) == [NAME]
    kernel.backstores = {"vscsihba0-lun3", "vscsihba0-lun4"}
    exports.retry(document())
    assert exports.failures == {}
    assert kernel.found[NAME].luns.keys() == {0, 1}


def test_a_failure_is_logged_once_and_told(
    exports: Exports, kernel: Targets, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.refuse = HostError("no memory")
    for _ in range(3):
        exports.restore(the(document()), document())
    assert caplog.text.count("no memory") == 1
    assert next(exports.status(document()))["state"] == "failing: no memory"
    exports.retry(Document())
    assert exports.failures == {}, "it is not wanted any more"


def test_an_export_of_an_interrupted_change_is_removed_as_soon_as_that_is_possible(
    exports: Exports, kernel: Targets
) -> None:
    other = document(name="iqn.2026-11.example:other")
    exports.add(the(other), other)
    kernel.refuse = HostError("no memory")
    exports.resume(Document(), other)
    exports.retry(Document())
    assert list(exports.unwanted) == list(kernel.found)
    kernel.refuse = None
    exports.retry(Document())
    assert (exports.unwanted, exports.failures, kernel.found) == ({}, {}, {})


def test_an_export_that_was_not_removed_is_no_other_program_s(exports: Exports, kernel: Targets) -> None:
    exports.add(the(document()), document())
    kernel.refuse = HostError("no memory")
    exports.resume(Document(), document())
    kernel.refuse = None
    exports.add(the(document()), document())
    assert (exports.unwanted, list(kernel.found)) == ({}, [NAME])


def test_an_export_that_is_removed_has_failed_no_more(exports: Exports, kernel: Targets) -> None:
    kernel.refuse = HostError("no memory")
    exports.restore(the(document()), document())
    kernel.refuse = None
    exports.remove(the(document()))
    assert exports.failures == {}


def test_the_commands_of_a_target_that_changes_are_ended_if_they_hold_it_up(
    exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[list[str]] = []

    @contextmanager
    def giving_up(backstores: Iterable[str], _give_up_old: object) -> Iterator[None]:
        entered.append(list(backstores))
        yield

    monkeypatch.setattr(exports_module, "giving_up", giving_up)
    exports.add(the(document()), document())
    exports.change(the(document()), document())
    assert entered == [], "nothing is taken away from anybody"
    exports.remove(the(document()))
    assert entered == [["vscsihba0-lun3", "vscsihba0-lun4"]]


def test_a_lun_that_is_not_active_is_made_so(exports: Exports, kernel: Targets) -> None:
    whole = document(luns=[{"lun": 0, "backstore": "a", "state": "standby"}, {"lun": 1, "backstore": "b"}])
    exports.add(the(whole), whole)
    assert kernel.found[NAME].states == {0: "standby"}


def test_the_status_has_the_sessions(exports: Exports, kernel: Targets) -> None:
    kernel.logged_in = [Session(HOST, ("192.0.2.4",))]
    assert next(exports.status(document()))["sessions"] == [], "there is no target"
    exports.add(the(document()), document())
    (shown,) = exports.status(document())
    assert shown["sessions"] == [{"initiator": HOST, "addresses": ["192.0.2.4"]}]


def test_sessions_that_lose_something_are_users(exports: Exports, kernel: Targets) -> None:
    whole = document(initiators=[{"name": HOST, "luns": [0]}, {"name": OTHER}])
    exports.add(the(whole), whole)
    kernel.logged_in = [Session(HOST, ("192.0.2.4",)), Session(OTHER)]
    assert exports.users(the(whole)) == [f"{HOST} is logged in from 192.0.2.4", f"{OTHER} is logged in"]
    luns = [{"lun": 0, "backstore": "a"}]
    without = document(initiators=[{"name": HOST, "luns": [0]}, {"name": OTHER}], luns=luns)
    assert exports.users(the(whole), the(without)) == [f"{OTHER} is logged in"]
    assert exports.users(the(whole), the(document(initiators=[{"name": OTHER}]))) == [
        f"{HOST} is logged in from 192.0.2.4"
    ]
    assert exports.users(the(whole), the(whole)) == []
    rest = document(
        initiators=[{"name": HOST, "luns": []}, {"name": OTHER}], luns=[{"lun": 1, "backstore": "b"}]
    )
    assert exports.users(the(whole), the(rest)) == [
        f"{HOST} is logged in from 192.0.2.4",
        f"{OTHER} is logged in",
    ]
    moved = document(initiators=[{"name": HOST, "luns": [0]}, {"name": OTHER}], portals=["127.0.0.1:3261"])
    assert len(exports.users(the(whole), the(moved))) == 2


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("secret-of-u1", 0o644, r"others can read .*u \(mode 0644\); chmod 600"),
        ("too-short-u", 0o600, "has 11 bytes; use 12 to 255"),
        ("x" * 256, 0o600, "has 256 bytes"),
        ("with a blank", 0o600, "cannot be used; use printable ASCII characters without a blank"),
        ("NULL12345678", 0o600, 'do not begin with "NULL"'),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused_before_any_change(
    tmp_path: Path, text: str, mode: int, message: str
) -> None:
    entry = {"name": HOST, "user": "u", "password_file": secret(tmp_path / "u", text, mode)}
    with pytest.raises(ConfigError, match=f"export {NAME}, {HOST}: .*{message}"):
        check_exports(document(initiators=[entry]), Document(), frozenset)


def test_one_secret_for_both_directions_is_refused(tmp_path: Path) -> None:
    file = secret(tmp_path / "u")
    mutual = {"mutual_user": "m", "mutual_password_file": file}
    entry = {"name": HOST, "user": "u", "password_file": file, **mutual}
    with pytest.raises(ConfigError, match="both secrets are the same"):
        check_exports(document(initiators=[entry]), Document(), frozenset)


def test_an_address_must_be_of_this_machine_and_free() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.9:3260: this machine does not have that address"):
        check_exports(document(portals=["192.0.2.9:3260"]), Document(), frozenset)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        portal = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match="another program listens there"):
            check_exports(document(portals=[portal]), Document(), frozenset)
        check_exports(document(portals=[portal]), Document(), lambda: {portal})
        check_exports(document(portals=[portal]), document(portals=[portal]), frozenset)
