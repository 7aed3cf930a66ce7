"""A bad entry of a saved document affects no other, and is restored once it is corrected."""

import json
from pathlib import Path
from typing import Any

import pytest

from vscsihba.config.awaited import Awaited
from vscsihba.config.load import read
from vscsihba.config.model import Document
from vscsihba.config.salvage import Salvage, Unread, salvage, salvage_value

Value = dict[str, Any]


def document(*names: str) -> Value:
    return {
        "version": 1,
        "backstores": {name: {"handler": "memory", "size": "1MiB"} for name in names},
        "hbas": [
            {"id": 0, "luns": [{"lun": number, "backstore": name} for number, name in enumerate(names)]},
            {"id": 7, "luns": []},
        ],
    }


def places(found: Salvage | Document) -> set[tuple[int, int]]:
    read_ = found.document if isinstance(found, Salvage) else found
    return {(hba.id, lun.lun) for hba in read_.hbas for lun in hba.luns}


def salvaged(value: object) -> Salvage:
    return salvage_value(value, Path("/"))


def test_a_document_without_fault_is_read_as_a_whole() -> None:
    assert salvaged(document("a", "b")) == Salvage(read(document("a", "b"), Path("/")))


def bad_option(value: Value) -> None:
    value["backstores"]["b"]["sise"] = 1


def no_handler(value: Value) -> None:
    value["backstores"]["b"] = {"handler": "gone"}


def no_stack(value: Value) -> None:
    value["backstores"]["b"] = 7


def no_backstore(value: Value) -> None:
    del value["backstores"]["b"]


def unknown_key(value: Value) -> None:
    value["hbas"][0]["luns"][1]["colour"] = "red"


def out_of_range(value: Value) -> None:
    value["hbas"][0]["luns"][1]["queue_depth"] = 0


def shown_twice(value: Value) -> None:
    value["hbas"][0]["luns"][1]["backstore"] = "a"


def one_serial(value: Value) -> None:
    for lun in value["hbas"][0]["luns"][:2]:
        lun["serial"] = "S"


FAULTS = {
    bad_option: r"$.backstores.b.sise: handler memory has no option",
    no_handler: r"$.backstores.b.handler: ",
    no_stack: r"$.backstores.b: it cannot be 7",
    no_backstore: r"$.hbas[0].luns[1].backstore: there is no backstore",
    unknown_key: r"$.hbas[0].luns[1].colour: unknown key",
    out_of_range: r"$.hbas[0].luns[1].queue_depth: it cannot be 0",
    shown_twice: r"$.hbas[0].luns[1].backstore: the backstore a already belongs to LUN 0 of HBA 0",
    one_serial: r"$.hbas[0].luns[1].serial: LUN 0 of HBA 0 also has this serial",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_entry_affects_no_other(fault: Any) -> None:
    value = document("a", "b", "c")
    fault(value)
    found = salvaged(value)
    assert places(found) == {(0, 0), (0, 2)}
    assert [hba.id for hba in found.document.hbas] == [0, 7]
    (unread,) = found.unread
    assert unread.why.startswith(FAULTS[fault])
    assert (unread.hba, unread.lun) == (0, 1)
    assert unread.backstore == ("a" if fault is shown_twice else "b")


def test_every_bad_entry_is_reported_with_its_original_place() -> None:
    value = document("a", "b", "c", "d")
    for number in (1, 3):
        value["hbas"][0]["luns"][number]["colour"] = "red"
    found = salvaged(value)
    assert places(found) == {(0, 0), (0, 2)}
    assert [unread.why[:22] for unread in found.unread] == [
        "$.hbas[0].luns[1].colo",
        "$.hbas[0].luns[3].colo",
    ]


@pytest.mark.parametrize("name", ["b.c", "b"])
def test_names_with_dots_are_distinguished(name: str) -> None:
    value = document("a", "b", "b.c")
    value["backstores"][name]["sise"] = 1
    assert [unread.backstore for unread in salvaged(value).unread] == [name]


def test_a_bad_hba_is_reported_for_each_of_its_luns() -> None:
    value = document("a", "b")
    value["hbas"][0]["engines"] = 0
    value["hbas"].append({"id": 0, "luns": []})
    found = salvaged(value)
    assert [(unread.hba, unread.lun, unread.backstore) for unread in found.unread] == [
        (0, 0, "a"),
        (0, 1, "b"),
    ]
    assert [hba.id for hba in found.document.hbas] == [0, 7], "the second of that id is a good one now"


def test_entries_without_a_place_and_unknown_keys() -> None:
    value = document("a")
    value |= {"hbaz": [], "hbas": [7, {"id": "x", "luns": []}, *value["hbas"]]}
    value["backstores"]["unseen"] = {"handler": "gone"}
    found = salvaged(value)
    assert places(found) == {(0, 0)}
    assert len(found.unread) == 4
    assert {unread.backstore for unread in found.unread} == {None, "unseen"}


@pytest.mark.parametrize("value", [[], {}, {"version": 2}, {"version": "1"}])
def test_a_value_that_is_no_document_is_not_read_at_all(value: object) -> None:
    found = salvaged(value)
    assert not found.readable
    assert found.document == Document()
    assert len(found.unread) == 1


@pytest.mark.parametrize("text", ["", "{", '{"version": 1, "backstores": {"a"', "\0" * 4096])
def test_a_torn_file_is_recognised(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    found = salvage(path)
    assert not found.readable
    assert found.unread[0].why.startswith(f"{path}: line ")


def test_any_torn_document_is_recognised(tmp_path: Path) -> None:
    path, text = tmp_path / "config.json", json.dumps(document("a", "b"))
    for length in range(len(text)):
        path.write_text(text[:length])
        assert not salvage(path).readable


# What is awaited.


def broken(*names: str, bad: str) -> Value:
    value = document(*names)
    value["backstores"][bad]["sise"] = 1
    return value


def test_an_entry_that_is_mended_is_restored_and_nothing_else() -> None:
    restored = salvaged(broken("a", "b", "c", bad="b"))
    awaited = Awaited.of(restored)
    running = read(document("a"), Path("/"))  # somebody has removed LUN 2 since
    joined, rest = awaited.joined(running, salvaged(document("a", "b", "c")))
    assert places(joined) == {(0, 0), (0, 1)}
    assert rest == Awaited()


def test_an_entry_that_is_still_bad_is_awaited_with_its_new_reason() -> None:
    awaited = Awaited.of(salvaged(broken("a", "b", bad="b")))
    value = document("a", "b")
    value["backstores"]["b"] = {"handler": "gone"}
    running = read(document("a"), Path("/"))
    joined, rest = awaited.joined(running, salvaged(value))
    assert joined == running
    assert ["gone" in unread.why for unread in rest.unread] == [True]


def test_where_nothing_could_be_read_everything_is_awaited() -> None:
    torn = Salvage(Document(), (Unread("torn"),), readable=False)
    joined, rest = Awaited.of(torn).joined(Document(), salvaged(document("a", "b")))
    assert places(joined) == {(0, 0), (0, 1)}
    assert rest == Awaited()
    _, rest = Awaited.of(torn).joined(Document(), torn)
    assert rest == Awaited.of(torn)


def test_a_file_that_is_torn_later_brings_back_nothing_that_was_removed() -> None:
    torn = Salvage(Document(), (Unread("torn"),), readable=False)
    running = read(document("a"), Path("/"))
    _, rest = Awaited.of(salvaged(broken("a", "b", "c", bad="b"))).joined(running, torn)
    assert [(unread.hba, unread.lun, unread.why) for unread in rest.unread] == [(0, 1, "torn")]
    joined, _ = rest.joined(running, salvaged(document("a", "b", "c")))
    assert places(joined) == {(0, 0), (0, 1)}


def test_an_entry_whose_id_could_not_be_read_is_restored_once_it_can_be() -> None:
    value = document("a")
    value["hbas"].append({"id": "x", "luns": [{"lun": 5, "backstore": "b"}]})
    value["backstores"]["b"] = {"handler": "memory", "size": "1MiB"}
    awaited = Awaited.of(salvaged(value))
    value["hbas"][-1]["id"] = 9
    joined, rest = awaited.joined(Document(), salvaged(value))
    assert places(joined) == {(9, 5)}, "LUN 0 could be read at first, and somebody has removed it"
    assert rest == Awaited()


def test_a_backstore_that_another_lun_uses_now_is_reported() -> None:
    awaited = Awaited.of(salvaged(broken("a", "b", bad="b")))
    other = document("b")
    other["hbas"][0]["id"] = 3
    running = read(other, Path("/"))
    joined, rest = awaited.joined(running, salvaged(document("a", "b")))
    assert joined == running
    assert "the backstore b already belongs to LUN 0 of HBA 3" in rest.unread[0].why


def test_a_change_by_the_user_ends_the_waiting() -> None:
    awaited = Awaited.of(salvaged(broken("a", "b", bad="b")))
    assert awaited.without(Document(), [0]) == Awaited()
    assert awaited.without(Document(), [1]) == awaited
    assert awaited.without(read(document("a", "c"), Path("/"))) == Awaited()
