"""Actions of layers while their disk is in use."""

from pathlib import Path

import msgspec
import pytest

from tests.polling import wait_until
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.actions import ask, find, quiet
from vscsihba.handlers.stack import Stack, build
from vscsihba.testing.disk_model import read, write

SIZE = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(bytes(SIZE))
    return path


def told(answer: object) -> object:
    """The output that a program at the other end of a socket sees."""
    return msgspec.json.decode(msgspec.json.encode(answer))


def with_snapshots(image: Path) -> Stack:
    return build({"handler": "snapshot", "path": str(image) + ".snap", "create": True, "next": str(image)})


def test_snapshots_are_taken_listed_and_deleted(image: Path) -> None:
    stack = with_snapshots(image)
    with stack as disk:
        layer = stack.layer("snapshot")
        write(disk, 0, b"one")
        ask(layer, "take", {"name": "first"})
        write(disk, 0, b"two")
        ask(layer, "take", {"name": "second"})
        listed = told(ask(layer, "list", {}))
        assert isinstance(listed, list)
        assert [entry["name"] for entry in listed] == ["first", "second"]
        ask(layer, "roll_back", {"name": "first"})
        assert read(disk, 0, 3) == b"one"
        ask(layer, "delete", {"name": "second"})
        ask(layer, "tidy", {})
        assert [entry["name"] for entry in msgspec.to_builtins(ask(layer, "list", {}))] == ["first"]


def test_progress_is_told_and_can_end_it(image: Path) -> None:
    stack = with_snapshots(image)
    with stack as disk:
        layer = stack.layer("snapshot")
        ask(layer, "take", {"name": "first"})
        write(disk, 0, b"x" * SIZE)
        ask(layer, "take", {"name": "second"})

        def enough(_done: int, _of: int) -> None:
            raise HostError("the disk is given up")

        with pytest.raises(HostError, match="given up"):
            ask(layer, "delete", {"name": "second"}, enough)
        assert read(disk, 0, SIZE) == b"x" * SIZE
        seen: list[tuple[int, int]] = []
        ask(layer, "tidy", {}, lambda done, of: seen.append((done, of)))
        assert seen[-1] == (16, 16)
        assert read(disk, 0, SIZE) == b"x" * SIZE


def test_only_a_roll_back_disturbs(image: Path) -> None:
    stack = with_snapshots(image)
    with stack:
        actions = stack.layer("snapshot").actions()
        assert [name for name in actions if actions[name].disturbs] == ["roll_back"]


def test_a_snapshot_itself_has_no_actions(image: Path) -> None:
    stack = with_snapshots(image)
    with stack:
        ask(stack.layer("snapshot"), "take", {"name": "first"})
    of_one = {"handler": "snapshot", "path": str(image) + ".snap", "snapshot": "first", "next": str(image)}
    stack = build(of_one)
    with stack, pytest.raises(UsageError, match="snapshot has no action 'take'"):
        find(stack.layer("snapshot"), "take")


@pytest.mark.parametrize(
    ("action", "arguments", "message"),
    [
        ("tak", {"name": "x"}, "no action 'tak'; did you mean \"take\"?"),
        ("take", {}, "snapshot.take: .*needs the option 'name'"),
        ("take", {"name": ""}, r"snapshot.take.name: it cannot be empty; use text"),
        ("take", {"name": "x", "nam": "y"}, "snapshot.take.nam: .*did you mean"),
        ("delete", {"name": "x"}, "there is no snapshot 'x'; there are: none"),
    ],
)
def test_what_cannot_be_meant(image: Path, action: str, arguments: dict[str, object], message: str) -> None:
    stack = with_snapshots(image)
    with stack, pytest.raises(UsageError, match=message):
        ask(stack.layer("snapshot"), action, arguments, quiet)


def test_layers_are_found_by_name(image: Path) -> None:
    stack = build({"handler": "stats", "next": {"handler": "readonly", "next": str(image)}})
    assert stack.layer("readonly") is stack.layers[1]
    with pytest.raises(UsageError, match="no layer 'cow'; it has: stats, readonly, file"):
        stack.layer("cow")


def test_a_mirrors_legs_come_and_go_and_the_document_with_them(image: Path, tmp_path: Path) -> None:
    other, third = tmp_path / "b.img", tmp_path / "c.img"
    for path in (other, third):
        path.write_bytes(bytes(SIZE))
    document = {
        "handler": "stats",
        "next": {
            "handler": "mirror",
            "path": str(tmp_path / "m.state"),
            "create": True,
            "legs": [str(image), str(other)],
        },
    }
    stack = build(document)

    def status() -> dict[str, object]:
        found = told(ask(stack.layer("mirror"), "status", {}))
        assert isinstance(found, dict)
        return found

    def equal() -> bool:
        found = status()
        assert isinstance(found["legs"], list)
        return found["resync"] is None and all(leg["standing"] == "whole" for leg in found["legs"])

    with stack as disk:
        wait_until(equal)
        assert ask(stack.layer("mirror"), "add_leg", {"leg": str(third)}) == 2
        wait_until(equal)
        write(disk, 0, b"on three legs")
        ask(stack.layer("mirror"), "remove_leg", {"number": 0})
        changed = stack.document
    assert third.read_bytes()[:SIZE] == other.read_bytes()[:SIZE] == image.read_bytes()[:SIZE]
    assert changed == {**document, "next": {**document["next"], "legs": [str(other), str(third)]}}  # type: ignore[dict-item]
    with build(changed) as disk:
        assert read(disk, 0, 13) == b"on three legs"
