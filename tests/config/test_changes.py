"""Changes between documents: they lead to the target, disturb few disks, and have a safe order."""

from functools import reduce
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.documents import documents, unhurried
from vscsihba.config.changes import Changes, changes
from vscsihba.config.dump import dump
from vscsihba.config.frame_changes import layers
from vscsihba.config.model import Document, Hba, Lun, StackDocument
from vscsihba.config.pruning import Prune
from vscsihba.errors import ConfigError

PRUNES = st.sampled_from(get_args(Prune))


def fold(document: Document, steps: Changes) -> Document:
    return reduce(lambda folded, step: step.carry_out(folded), steps, document)


def possible(running: Document, wanted: Document, prune: Prune) -> Changes | None:
    """Return the changes, None if they were refused with a place."""
    try:
        return changes(running, wanted, prune=prune)
    except ConfigError as error:
        refused = error
    assert refused.place.startswith("$.backstores.")
    assert refused.cure
    return None


@unhurried
@given(documents(), documents())
def test_changes_lead_to_what_is_wanted(running: Document, wanted: Document) -> None:
    found = possible(running, wanted, "all")
    if found is not None:
        assert fold(running, found) == wanted == found.target


@unhurried
@given(documents(), documents(), PRUNES)
def test_changes_lead_to_their_target_and_twice_is_nothing(
    running: Document, wanted: Document, prune: Prune
) -> None:
    found = possible(running, wanted, prune)
    if found is not None:
        assert fold(running, found) == found.target
        assert changes(found.target, wanted, prune=prune).steps == ()
        assert dump(found.target) == dump(fold(running, found))


@unhurried
@given(documents())
def test_nothing_leads_from_a_document_to_itself(document: Document) -> None:
    for prune in get_args(Prune):
        assert changes(document, document, prune=prune).steps == ()


@unhurried
@given(documents(), documents(), PRUNES)
def test_every_change_can_be_taken_back(running: Document, wanted: Document, prune: Prune) -> None:
    document = running
    for step in possible(running, wanted, prune) or ():
        after = step.carry_out(document)
        assert after != document
        assert step.inverse().carry_out(after) == document
        document = after


@unhurried
@given(documents(), documents(), PRUNES)
def test_no_two_luns_have_one_backstore_on_the_way(running: Document, wanted: Document, prune: Prune) -> None:
    document = running
    for step in possible(running, wanted, prune) or ():
        document = step.carry_out(document)
        shown = [lun.backstore for hba in document.hbas for lun in hba.luns]
        assert len(shown) == len(set(shown))
        assert set(shown) <= document.backstores.keys()


@unhurried
@given(documents(), documents(), PRUNES)
def test_what_is_described_under_a_working_disk_is_the_same_disk(
    running: Document, wanted: Document, prune: Prune
) -> None:
    document = running
    for step in possible(running, wanted, prune) or ():
        after = step.carry_out(document)
        if step.kind in ("change_backstore", "remove_backstore"):
            place = document.place_of(step.backstore)  # type: ignore[attr-defined]
            if place is not None:
                assert step.kind == "change_backstore"
                assert _bare(step.old) == _bare(step.new)  # type: ignore[attr-defined]
        document = after


def _bare(stack: StackDocument) -> StackDocument:
    below = stack.get("next")
    kept = {key: stack[key] for key in stack if key not in ("size", "preallocation", "next")}
    return {**kept, "next": _bare(below)} if isinstance(below, dict) else kept


@unhurried
@given(documents(), documents())
def test_other_hbas_are_left_alone(running: Document, wanted: Document) -> None:
    found = possible(running, wanted, "named")
    if found is not None:
        for hba in running.hbas:
            if wanted.hba(hba.id) is None:
                assert found.target.hba(hba.id) == hba


@unhurried
@given(documents(), documents())
def test_nothing_is_taken_away_unless_it_is_to_be(running: Document, wanted: Document) -> None:
    for step in possible(running, wanted, "none") or ():
        assert step.kind not in ("remove_hba", "remove_backstore")
        assert step.kind != "remove_lun" or step.replaces


@unhurried
@given(documents(), documents(), PRUNES)
def test_every_change_says_itself_in_a_line_and_in_json(
    running: Document, wanted: Document, prune: Prune
) -> None:
    for step in possible(running, wanted, prune) or ():
        assert step.text.isprintable()
        assert step.as_json().items() >= {"kind": step.kind, "text": step.text, "sign": step.sign}.items()


# What each difference comes to.


def file(path: str, size: str | None = "1GiB", **options: object) -> StackDocument:
    return {"handler": "file", "path": path, **({"size": size} if size else {}), **options}


def one(lun: Lun, **backstores: StackDocument) -> Document:
    return Document(backstores=backstores, hbas=(Hba(0, luns=(lun,)),))


def texts(running: Document, wanted: Document, prune: Prune = "named") -> list[str]:
    return [f"{step.sign} {step.text}" for step in changes(running, wanted, prune=prune)]


A = one(Lun(0, "a"), a=file("/a"))


@pytest.mark.parametrize(
    ("running", "wanted", "said"),
    [
        (Document(), A, ["+ add backstore a: file /a 1GiB", "+ add HBA 0", "+ add LUN 0 of HBA 0: a"]),
        (A, Document(), []),
        (
            A,
            Document(hbas=(Hba(0, engines=2),)),
            [
                "~ change HBA 0: engines 1 -> 2",
                "- remove LUN 0 of HBA 0: a",
                "- remove backstore a: file /a 1GiB",
            ],
        ),
        (A, one(Lun(0, "a"), a=file("/a", "2GiB")), ["~ enlarge a from 1GiB to 2GiB: LUN 0 of HBA 0"]),
        (
            one(Lun(0, "a"), a=file("/a", None)),
            one(Lun(0, "a"), a=file("/a", "2GiB")),
            ["~ enlarge a to 2GiB: LUN 0 of HBA 0"],
        ),
        (A, one(Lun(0, "a"), a=file("/a", None)), ["~ change backstore a: file /a"]),
        (A, one(Lun(0, "a"), a=file("/a", create=True)), ["~ change backstore a: file /a 1GiB"]),
        (
            A,
            one(Lun(0, "a"), a=file("/a", direct=True)),
            ["! replace LUN 0 of HBA 0: a is now file /a 1GiB"],
        ),
        (
            A,
            one(Lun(0, "a", queue_depth=32, command_timeout=60), a=file("/a")),
            ["~ change LUN 0 of HBA 0: queue_depth default -> 32, command_timeout default -> 60"],
        ),
        (
            A,
            one(Lun(0, "a", read_only=True), a=file("/a")),
            ["! replace LUN 0 of HBA 0: read_only false -> true"],
        ),
        (
            A,
            one(Lun(0, "b"), b=file("/a")),
            [
                "+ add backstore b: file /a 1GiB",
                "~ change LUN 0 of HBA 0: backstore a -> b",
                "- remove backstore a: file /a 1GiB",
            ],
        ),
        (
            A,
            one(Lun(0, "b"), b=file("/b")),
            [
                "+ add backstore b: file /b 1GiB",
                "! replace LUN 0 of HBA 0: backstore a -> b",
                "- remove backstore a: file /a 1GiB",
            ],
        ),
        (
            A,
            one(Lun(1, "a"), a=file("/a")),
            ["- remove LUN 0 of HBA 0: a", "+ add LUN 1 of HBA 0: a"],
        ),
        (
            A,
            one(Lun(1, "b"), b=file("/b")),
            [
                "+ add backstore b: file /b 1GiB",
                "+ add LUN 1 of HBA 0: b",
                "- remove LUN 0 of HBA 0: a",
                "- remove backstore a: file /a 1GiB",
            ],
        ),
    ],
)
def test_difference_becomes_the_smallest_change(running: Document, wanted: Document, said: list[str]) -> None:
    assert texts(running, wanted) == said


def test_disks_that_swap_go_both_before_one_comes() -> None:
    both = {"a": file("/a"), "b": file("/b")}
    running = Document(backstores=both, hbas=(Hba(0, luns=(Lun(0, "a"), Lun(1, "b"))),))
    wanted = Document(backstores=both, hbas=(Hba(0, luns=(Lun(0, "b"), Lun(1, "a"))),))
    assert texts(running, wanted) == [
        "- remove LUN 0 of HBA 0: a, to recreate it as another disk",
        "- remove LUN 1 of HBA 0: b, to recreate it as another disk",
        "+ add LUN 0 of HBA 0: b",
        "+ add LUN 1 of HBA 0: a",
    ]
    assert len(changes(running, wanted).replacing) == 2


def test_file_is_free_before_another_disk_is_made_of_it() -> None:
    wanted = one(Lun(1, "b"), b={"handler": "stats", "next": file("/a")})
    assert texts(A, wanted)[0] == "- remove LUN 0 of HBA 0: a"


def test_serial_number_is_free_before_another_disk_has_it() -> None:
    both = {"a": file("/a"), "b": file("/b")}
    running = Document(backstores=both, hbas=(Hba(0, luns=(Lun(0, "a", serial="S"),)),))
    wanted = Document(backstores=both, hbas=(Hba(0, luns=(Lun(1, "b", serial="S"),)),))
    assert texts(running, wanted)[:2] == ["- remove LUN 0 of HBA 0: a", "+ add LUN 1 of HBA 0: b"]


def test_prune_all_takes_other_hbas_away() -> None:
    assert texts(A, Document(), "all") == [
        "- remove LUN 0 of HBA 0: a",
        "- remove HBA 0",
        "- remove backstore a: file /a 1GiB",
    ]


def test_prune_none_keeps_luns_that_are_not_named() -> None:
    wanted = one(Lun(1, "b"), b=file("/b"))
    assert texts(A, wanted, "none") == ["+ add backstore b: file /b 1GiB", "+ add LUN 1 of HBA 0: b"]


def test_backstore_that_a_lun_keeps_cannot_be_shown_elsewhere() -> None:
    wanted = Document(backstores={"a": file("/a")}, hbas=(Hba(1, luns=(Lun(5, "a"),)),))
    with pytest.raises(ConfigError) as caught:
        changes(A, wanted)
    assert str(caught.value) == (
        "$.backstores.a: LUN 0 of HBA 0 has the same backstore, and stays; "
        "prune all, or choose another one for this LUN"
    )
    assert texts(A, wanted, "all")[-1] == "- remove HBA 0"


@pytest.mark.parametrize("hba_id", [0, 9])
def test_serial_number_that_a_lun_keeps_cannot_be_anothers(hba_id: int) -> None:
    running = Document(backstores={"a": file("/a")}, hbas=(Hba(5, luns=(Lun(0, "a", serial="S"),)),))
    wanted = Document(backstores={"b": file("/b")}, hbas=(Hba(hba_id, luns=(Lun(1, "b", serial="S"),)),))
    with pytest.raises(
        ConfigError, match=r"^\$\.backstores\.b: LUN 0 of HBA 5 has the same serial, and stays"
    ):
        changes(running, wanted)


@pytest.mark.parametrize("prune", get_args(Prune))
def test_disk_never_shrinks(prune: Prune) -> None:
    smaller = one(Lun(0, "a"), a={"handler": "stats", "next": file("/a", "512MiB")})
    running = one(Lun(0, "a"), a={"handler": "stats", "next": file("/a")})
    with pytest.raises(ConfigError) as caught:
        changes(running, smaller, prune=prune)
    assert str(caught.value) == (
        "$.backstores.a.next.size: 512MiB is less than its 1GiB, and a disk cannot shrink; "
        "use its present size, or add a new backstore"
    )


def test_backstore_that_no_lun_shows_may_say_anything() -> None:
    running = Document(backstores={"a": file("/a")})
    assert texts(running, Document(backstores={"a": file("/a", "1MiB")})) == [
        "~ change backstore a: file /a 1MiB"
    ]


def test_json_has_both_sides() -> None:
    (step,) = changes(A, one(Lun(0, "a", queue_depth=32), a=file("/a")))
    assert step.as_json() == {
        "kind": "tune_lun",
        "text": "change LUN 0 of HBA 0: queue_depth default -> 32",
        "sign": "~",
        "disturbs": False,
        "replaces": False,
        "hba": 0,
        "old": {"lun": 0, "backstore": "a"},
        "new": {"lun": 0, "backstore": "a", "queue_depth": 32},
    }


@pytest.mark.parametrize("size", ["2GiB", 2 << 30])
def test_a_size_is_shown_as_people_write_it(size: object) -> None:
    assert layers({"handler": "file", "path": "/a", "size": size}) == "file /a 2GiB"


def test_a_remote_source_is_named_by_its_place() -> None:
    image: StackDocument = {"handler": "rbd", "pool": "disks", "image": "vm1", "user": "x", "size": "1GiB"}
    assert layers({"handler": "readonly", "next": image}) == "readonly, rbd disks vm1 1GiB"
    assert layers({"handler": "nbd", "uri": "nbd://host/x", "timeout": 9}) == "nbd nbd://host/x"
