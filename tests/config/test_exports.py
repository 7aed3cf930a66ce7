"""Exports in a document: how they are read and refused, and which changes they make."""

import json
from pathlib import Path
from typing import Any

import pytest

from vscsihba.config.changes import changes
from vscsihba.config.dump import dump
from vscsihba.config.load import parse, read, warnings
from vscsihba.config.model import Document
from vscsihba.errors import ConfigError

BASE = Path("/srv")
NAME = "iqn.2026-11.example:store"
HOST = "iqn.2026-11.example:host1"
OTHER = "iqn.2026-11.example:host2"


def value(**export: Any) -> dict[str, Any]:
    """Return a document with two disks and an export of both."""
    luns = [{"lun": 1, "backstore": "b"}, {"lun": 0, "backstore": "a"}]
    whole = {
        "transport": "iscsi",
        "name": NAME,
        "portals": ["192.0.2.7:3260"],
        "initiators": [{"name": HOST}],
        "luns": luns,
        **export,
    }
    return {
        "version": 1,
        "backstores": {name: {"handler": "memory", "size": "1MiB"} for name in "ab"},
        "hbas": [{"id": 0, "luns": [{"lun": 3, "backstore": "a"}, {"lun": 4, "backstore": "b"}]}],
        "exports": [whole],
    }


def document(**export: Any) -> Document:
    return read(value(**export), BASE)


def test_an_export_is_read_into_canonical_form() -> None:
    initiators = [
        {"name": OTHER, "user": "v", "password_file": "/v.chap"},
        {"name": HOST, "user": "u", "password_file": "u.chap", "luns": [1, 0, 1]},
    ]
    portals = ["[2001:DB8:0::7]:3260", "192.0.2.7:3260"]
    (export,) = document(initiators=initiators, portals=portals).exports
    assert export.portals == ("192.0.2.7:3260", "[2001:db8::7]:3260")
    assert [lun.lun for lun in export.luns] == [0, 1]
    assert [(each.name, each.password_file, each.luns) for each in export.initiators] == [
        (HOST, "/srv/u.chap", (0, 1)),
        (OTHER, "/v.chap", None),
    ]


def test_a_dumped_export_is_read_back() -> None:
    whole = document(header_digest="CRC32C", cmdsn_depth=32, open=True, luns=[])
    assert parse(dump(whole).encode(), Path("/elsewhere")) == whole
    assert "exports" not in json.loads(dump(Document()))


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ({"name": "store"}, r'exports\[0\]\.name: it cannot be "store"; use an iSCSI name in lower case'),
        ({"name": f"iqn.2026-13.example:{'x' * 5}"}, "it cannot be"),
        ({"name": f"iqn.2026-11.example:{'x' * 220}"}, "up to 223 characters"),
        ({"transport": "fc"}, r"transport: it cannot be \"fc\""),
        ({"portals": []}, r"exports\[0\]\.portals: the export has no portal"),
        ({"portals": ["192.0.2.7"]}, r'portals\[0\]: it cannot be "192\.0\.2\.7"; use an address and a port'),
        ({"portals": ["192.0.2.7:0"]}, "use an address and a port"),
        ({"portals": ["2001:db8::7:3260"]}, "use an address and a port"),
        (
            {"portals": ["192.0.2.7:3260", "192.0.2.7:3260"]},
            r"portals\[1\]: the export has this portal already",
        ),
        (
            {"initiators": [{"name": HOST}, {"name": HOST}]},
            r"initiators\[1\]\.name: the export has this initiator",
        ),
        (
            {"initiators": [{"name": HOST, "user": "u"}]},
            "password_file: the key is missing; CHAP needs user and",
        ),
        ({"initiators": [{"name": HOST, "password_file": "/u"}]}, "user: the key is missing"),
        (
            {"initiators": [{"name": HOST, "mutual_user": "m", "mutual_password_file": "/m"}]},
            "mutual CHAP needs a user as well",
        ),
        (
            {"initiators": [{"name": HOST}, {"name": OTHER, "user": "u", "password_file": "/u"}]},
            r"initiators\[0\]: it has no user, but another initiator of the export has one",
        ),
        (
            {"open": True, "initiators": [{"name": HOST, "user": "u", "password_file": "/u"}]},
            "an open export asks nobody for a secret",
        ),
        ({"initiators": [{"name": HOST, "luns": [7]}]}, r"initiators\[0\]\.luns: the export has no LUN 7"),
        ({"initiators": [{"name": HOST, "luns": "all"}]}, "use a list of numbers of LUNs"),
        ({"luns": [{"lun": 0, "backstore": "c"}]}, r'luns\[0\]\.backstore: there is no backstore "c"'),
        (
            {"luns": [{"lun": 0, "backstore": "a"}, {"lun": 0, "backstore": "b"}]},
            r"luns\[1\]\.lun: another LUN of the export has this number too",
        ),
        (
            {"luns": [{"lun": 0, "backstore": "a"}, {"lun": 1, "backstore": "a"}]},
            "LUN 0 of the export shows the backstore a already",
        ),
        (
            {
                "open": True,
                "luns": [{"lun": 0, "backstore": "a", "read_only": False}, {"lun": 1, "backstore": "b"}],
            },
            "an open export is read-only as a whole, or not at all",
        ),
        ({"colour": 1}, "unknown key"),
    ],
)
def test_a_bad_export_is_refused_with_its_place(export: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        document(**export)


def test_a_name_is_given_once() -> None:
    twice = value()
    twice["exports"] *= 2
    with pytest.raises(ConfigError, match=r"exports\[1\]\.name: another export has this name too"):
        read(twice, BASE)


def test_an_export_shows_what_an_hba_shows() -> None:
    lonely = value()
    del lonely["hbas"][0]["luns"][1]
    with pytest.raises(ConfigError, match=r"luns\[0\]\.backstore: no HBA has the backstore b"):
        read(lonely, BASE)


def test_an_export_that_nobody_can_log_in_to_is_warned_of() -> None:
    assert warnings(document(initiators=[])) == [
        "$.exports[0]: no initiator may log in; name initiators, or set open"
    ]
    assert warnings(document()) == warnings(document(initiators=[], open=True)) == []


def kinds(running: Document, wanted: Document, **options: Any) -> list[str]:
    return [step.kind for step in changes(running, wanted, **options)]


def test_a_lun_that_only_exports_show_has_no_settings_of_linux() -> None:
    given = value()
    given["hbas"][0]["luns"][0] |= {"local": False, "queue_full_timeout": 7}
    read(given, BASE)
    given["hbas"][0]["luns"][0]["queue_depth"] = 8
    with pytest.raises(ConfigError, match=r"luns\[0\]\.queue_depth: this computer does not see the LUN"):
        read(given, BASE)


def test_a_lun_that_nobody_sees_is_warned_of() -> None:
    given = value(luns=[])
    given["hbas"][0]["luns"][1]["local"] = False
    assert warnings(read(given, BASE)) == [
        "$.hbas[0].luns[1]: nobody sees this LUN; add it to an export",
    ]


def test_a_lun_that_becomes_local_is_replaced_outside_its_export() -> None:
    given = value()
    given["hbas"][0]["luns"][0]["local"] = False
    steps = changes(read(given, BASE), document()).steps
    assert [step.kind for step in steps] == ["reduce_export", "replace_lun", "change_export"]


def test_a_path_becomes_active_before_another_one_is_active_no_more() -> None:
    def paths(first: str, second: str) -> Document:
        given = value(luns=[{"lun": 0, "backstore": "a", "state": first}])
        name = f"{NAME}2"
        luns = [{"lun": 0, "backstore": "a", "state": second}, {"lun": 1, "backstore": "b"}]
        given["exports"].append(
            {**given["exports"][0], "name": name, "portals": ["192.0.2.8:3260"], "luns": luns}
        )
        return read(given, BASE)

    before, after = paths("active", "standby"), paths("standby", "active")
    assert [step.text for step in changes(before, after)] == [
        f"change export {NAME}2: ~ LUN 0 standby -> active",
        f"change export {NAME}: ~ LUN 0 active -> standby",
    ]
    assert "state" not in dump(paths("active", "active"))
    assert changes(before, after, prune="none").target == after


def test_the_same_export_is_no_change() -> None:
    assert kinds(document(), document()) == []


def test_what_an_export_loses_goes_after_what_it_gets() -> None:
    wanted = document(initiators=[{"name": OTHER}], nopin_timeout=20)
    found = changes(document(), wanted)
    assert [step.text for step in found] == [
        f"change export {NAME}: + initiator {OTHER}, nopin_timeout default -> 20",
        f"change export {NAME}: - initiator {HOST}",
    ]
    assert [step.disturbs for step in found] == [False, True]


def test_an_export_is_added_last_and_removed_first() -> None:
    whole = document()
    assert kinds(Document(), whole)[-1] == "add_export"
    assert kinds(whole, Document(), prune="all")[0] == "remove_export"


def test_a_disk_leaves_its_export_before_it_is_replaced() -> None:
    other = value()
    other["backstores"]["a"] = {"handler": "memory", "size": "1MiB", "block_size": 4096}
    assert kinds(document(), read(other, BASE)) == ["reduce_export", "replace_lun", "change_export"]


def test_a_disk_leaves_its_export_before_its_backstore_gets_another_name() -> None:
    other = value()
    del other["exports"]
    other["backstores"]["c"] = other["backstores"].pop("a")
    other["hbas"][0]["luns"][0]["backstore"] = "c"
    found = kinds(document(), read(other, BASE), prune="all")
    assert found == ["reduce_export", "add_backstore", "tune_lun", "remove_export", "remove_backstore"]


def test_an_export_that_is_not_named_stays() -> None:
    rest = value()
    del rest["exports"]
    assert kinds(document(), read(rest, BASE)) == []
    assert kinds(document(), read(rest, BASE), prune="all") == ["remove_export"]


def test_a_lun_that_an_export_still_shows_is_not_removed() -> None:
    rest = value()
    del rest["exports"], rest["hbas"][0]["luns"][1], rest["backstores"]["b"]
    with pytest.raises(ConfigError, match=f"LUN 1 of the export {NAME} shows it, and stays"):
        changes(document(), read(rest, BASE))


def test_entries_are_joined_where_nothing_is_pruned() -> None:
    wanted = document(
        initiators=[{"name": OTHER}], portals=["192.0.2.8:3260"], luns=[{"lun": 9, "backstore": "a"}]
    )
    with pytest.raises(ConfigError, match=rf"LUN 0 and LUN 9 of the export {NAME} would both show it"):
        changes(document(), wanted, prune="none")
    (export,) = changes(document(luns=[]), wanted, prune="none").target.exports
    assert (len(export.initiators), len(export.portals), len(export.luns)) == (2, 2, 1)
