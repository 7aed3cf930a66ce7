from typing import Annotated, Literal

import pytest
from msgspec import Meta

from vscsihba.errors import ConfigError
from vscsihba.handlers.options import (
    FilePath,
    MediumPath,
    Options,
    SecretPath,
    Size,
    convert,
    dump,
    path_options,
    secret_options,
)


class Wanted(Options, kw_only=True):
    path: Annotated[str, Meta(description="Where it is.")]
    size: Annotated[Size | None, Meta(description="How large it is.")] = None
    block_size: Literal[512, 4096] = 512
    tags: list[str] = []  # noqa: RUF012  # msgspec copies it

    def __post_init__(self) -> None:
        if self.size == 0:
            raise ValueError("an empty disk is none")


def wanted(**document: object) -> Wanted:
    return convert(Wanted, document, place="$.luns[1]", handler="test")


def test_sizes_are_numbers_or_text() -> None:
    assert wanted(path="a", size="1MiB").size == wanted(path="a", size=1 << 20).size == 1 << 20


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, r"\$\.luns\[1\]: handler test needs the option 'path'"),
        ({"pth": "a"}, r"\$\.luns\[1\]\.pth: handler test has no option 'pth'; did you mean \"path\"\?"),
        ({"path": "a", "x": 1}, r"known are: block_size, path, size, tags"),
        ({"path": 5}, r"\$\.luns\[1\]\.path: it cannot be 5; use "),
        (
            {"path": "a", "tags": ["b", 1]},
            r'\$\.luns\[1\]\.tags: it cannot be \["b", 1\]; use a list of text',
        ),
        ({"path": "a", "size": "big"}, r"\$\.luns\[1\]\.size: 'big' is not a size"),
        ({"path": "a", "size": -1}, r"\$\.luns\[1\]\.size: it cannot be -1; use a size"),
        ({"path": "a", "size": True}, r"\$\.luns\[1\]\.size: it cannot be true; use a size"),
        ({"path": "a", "size": 0}, r"\$\.luns\[1\]: an empty disk is none"),
    ],
)
def test_errors_name_the_place(document: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wanted(**document)


def test_dump_says_the_same_for_the_same_options() -> None:
    said = dump(wanted(size="1KiB", path="a"))
    assert said == dump(wanted(path="a", size=1024))
    assert said == '{"block_size":512,"path":"a","size":1024,"tags":[]}'


def test_paths_are_told_apart() -> None:
    class Paths(Options, kw_only=True):
        disk: MediumPath
        log: FilePath = ""
        key: Annotated[SecretPath, Meta(description="A key.")] = ""
        name: str = ""

    assert path_options(Paths) == {"disk": True, "log": False, "key": False}
    assert secret_options(Paths) == {"key"}
