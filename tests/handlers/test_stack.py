from collections.abc import Iterator
from pathlib import Path

import pytest

from vscsihba.block import Geometry, Views
from vscsihba.errors import ConfigError, HostError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.filter import PassThrough
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import build

events: list[str] = []


class Bottom(Handler):
    name = "bottom"

    class Options(Handler.Options, kw_only=True):
        fails: str = ""

    options: Options

    def do(self, what: str) -> None:
        events.append(f"{what} {self.name}")
        if self.options.fails == what:
            raise HostError(f"cannot {what}")

    def check(self) -> None:
        self.do("check")

    def open(self) -> None:
        self.do("open")

    def close(self) -> None:
        self.do("close")

    @property
    def geometry(self) -> Geometry:
        return Geometry(1 << 20)

    def read(self, offset: int, views: Views) -> None:
        pass


class Middle(PassThrough):
    name = "middle"

    class Options(Bottom.Options, kw_only=True):
        pass

    options: Options
    do = Bottom.do
    check = Bottom.check
    open = Bottom.open
    close = Bottom.close


class Known(Registry):
    def get(self, name: str) -> type[Handler]:
        mine: dict[str, type[Handler]] = {"bottom": Bottom, "middle": Middle}
        return mine.get(name) or super().get(name)


@pytest.fixture(autouse=True)
def no_events() -> Iterator[None]:
    events.clear()
    yield
    events.clear()


def layers(*fails: str) -> dict[str, object]:
    """Return a document of three layers, from the top; a word makes that step of a layer fail."""
    top, middle, bottom = fails
    return {
        "handler": "middle",
        "fails": top,
        "next": {"handler": "middle", "fails": middle, "next": {"handler": "bottom", "fails": bottom}},
    }


def test_building_opens_nothing() -> None:
    build(layers("", "", ""), registry=Known())
    assert events == []


def test_opens_from_the_bottom_and_closes_from_the_top() -> None:
    with build(layers("", "", ""), registry=Known()):
        opened = list(events)
    assert opened == [
        "check bottom",
        "check middle",
        "check middle",
        "open bottom",
        "open middle",
        "open middle",
    ]
    assert events[6:] == ["close middle", "close middle", "close bottom"]


def test_nothing_opens_unless_every_layer_can() -> None:
    with pytest.raises(HostError, match="cannot check"):
        build(layers("check", "", ""), registry=Known()).open()
    assert not any(event.startswith("open") for event in events)


def test_closes_what_was_opened_when_a_later_layer_fails() -> None:
    with pytest.raises(HostError, match="cannot open"):
        build(layers("open", "", ""), registry=Known()).open()
    assert events[-2:] == ["close middle", "close bottom"]


def test_closes_every_layer_even_if_one_fails() -> None:
    stack = build(layers("", "close", ""), registry=Known())
    stack.open()
    with pytest.raises(HostError, match="cannot close"):
        stack.close()
    assert events[-1] == "close bottom"


@pytest.mark.parametrize("fault", ["check", "open", "geometry"])
def test_a_faulty_handler_is_one_line(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from vscsihba.handlers.null import NullHandler\n\nclass Mine(NullHandler):\n    name = 'mine'\n"
        + ("    @property\n" if fault == "geometry" else "")
        + f"    def {fault}(self):\n        return 1 / 0\n"
    )
    with pytest.raises(
        HostError, match=r"mine is faulty: ZeroDivisionError: .*; look at .*mine\.py, line \d"
    ):
        build({"handler": str(path), "size": 512}).open()


def test_path_means_file(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(bytes(512))
    with build(str(tmp_path / "a.img")) as disk:
        assert disk.geometry.size == 512


@pytest.mark.parametrize("between", [{}, {"handler": "offset"}, {"handler": "log"}])
def test_a_path_below_what_only_reads_is_opened_for_reading_only(
    tmp_path: Path, between: dict[str, object]
) -> None:
    path = tmp_path / "base.img"
    path.write_bytes(bytes(4096))
    below = {**between, "next": str(path)} if between else str(path)
    with build({"handler": "readonly", "next": below}), build({"handler": "readonly", "next": str(path)}):
        pass


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"handler": "fiel", "path": "a"}, r"\$\.handler: there is no handler 'fiel'; did you mean"),
        ({"path": "a"}, r"\$: the handler is missing"),
        (5, r"\$: expected a path or an object"),
        ({"handler": "middle"}, r"\$: handler middle is a filter"),
        ({"handler": "middle", "next": {"handler": "bottom", "nxt": 1}}, r"\$\.next\.nxt: .* no option"),
        ({"handler": "bottom", "next": "a"}, r"\$\.next: handler bottom is not a filter"),
        ({"handler": "middle", "next": 7}, r"\$\.next: expected a path"),
    ],
)
def test_errors_name_the_place(document: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(document, registry=Known())  # type: ignore[arg-type]


def test_place_continues_that_of_the_larger_document() -> None:
    with pytest.raises(UsageError, match=r"\$\.hbas\[0\]\.luns\[1\]\.size: "):
        build({"handler": "null", "size": "x"}, place="$.hbas[0].luns[1]")
