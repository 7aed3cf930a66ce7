from typing import Annotated, Literal

from msgspec import Meta

from vscsihba.handlers.option_help import describe
from vscsihba.handlers.options import FilePath, MediumPath, Options, Positive, Probability, Seconds, Size


class Wanted(Options, kw_only=True):
    path: Annotated[MediumPath, Meta(description="Where it is.", min_length=1)]
    key: FilePath | None = None
    size: Annotated[Size | None, Meta(description="How large it is.")] = None
    block_size: Literal[512, 4096] = 512
    verbs: tuple[Literal["read", "write"], ...] = ("read",)
    tags: list[str] = []  # noqa: RUF012  # msgspec copies it
    fast: bool = False
    label: str = ""
    seed: int = 0
    luck: Probability = 0.5
    pause: Seconds = 0
    rate: Positive | None = None


HELP = {option.name: option for option in describe(Wanted)}


def test_help_comes_from_the_options() -> None:
    assert list(HELP) == list(Wanted.__struct_fields__)
    assert HELP["path"].required
    assert HELP["path"].description == "Where it is."
    assert HELP["size"].default == "null"
    assert HELP["block_size"].default == "512"
    assert HELP["verbs"].default == '["read"]'


def test_types_in_words() -> None:
    assert {name: option.type for name, option in HELP.items()} == {
        "path": "path",
        "key": "path",
        "size": "size",
        "block_size": "one of 512, 4096",
        "verbs": "list of read, write",
        "tags": "list of text",
        "fast": "true or false",
        "label": "text",
        "seed": "whole number",
        "luck": "number from 0 to 1",
        "pause": "number from 0 on",
        "rate": "number above 0",
    }
