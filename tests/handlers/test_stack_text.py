from pathlib import Path

import pytest

from vscsihba.errors import ConfigError, UsageError
from vscsihba.handlers.stack import build
from vscsihba.handlers.stack_text import parse, split


@pytest.mark.parametrize(
    "path",
    ["/srv/a.img", "a.img", "file", "readonly", "./file:x", "C:x", "some thing", "a|b", "/x:y|z", "nosuch:x"],
)
def test_plain_paths_are_left_alone(path: str) -> None:
    assert parse(path) == path


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("file:/a.img", {"handler": "file", "path": "/a.img"}),
        ("file:/a=b.img", {"handler": "file", "path": "/a=b.img"}),
        ("file:path=/a.img;read_only=true", {"handler": "file", "path": "/a.img", "read_only": True}),
        ("file:a.img;block_size=4096", {"handler": "file", "path": "a.img", "block_size": 4096}),
        ("file:5", {"handler": "file", "path": "5"}),
        ("memory:size=1GiB", {"handler": "memory", "size": "1GiB"}),
        ("memory:1GiB", {"handler": "memory", "size": "1GiB"}),
        ("memory:size=512;label=7", {"handler": "memory", "size": 512, "label": "7"}),
        ("readonly|/a.img", {"handler": "readonly", "next": "/a.img"}),
        ('{"handler": "null", "size": 512}', {"handler": "null", "size": 512}),
        ("readonly:|null:1MiB", {"handler": "readonly", "next": {"handler": "null", "size": "1MiB"}}),
        (
            'log:verbs=["flush"]|/a.img',
            {"handler": "log", "verbs": ["flush"], "next": "/a.img"},
        ),
        (
            "cow:/o.cow;create=true|offset:1MiB|file:/a.img",
            {
                "handler": "cow",
                "path": "/o.cow",
                "create": True,
                "next": {
                    "handler": "offset",
                    "offset": "1MiB",
                    "next": {"handler": "file", "path": "/a.img"},
                },
            },
        ),
    ],
)
def test_layers(text: str, document: object) -> None:
    assert parse(text) == document


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("readonly:", "readonly is a filter; say what it sits on"),
        ('{"handler": "null"', "is not JSON: Expecting"),
        ("file:/a.img|/b.img", "file is not a filter; put it last"),
        ("readonly|nosuch:x|/a", "there is no handler 'nosuch'"),
        ("mirror:/s|/a.img", "mirror sits on several legs; describe it in a document"),
        ("file:/a.img;read_only", "'read_only' is not of the form option=value"),
        ("readonly:x|/a.img", "'x' is not of the form option=value"),
        ("https://server/a.img", "is a URL, not a path; write its handler before it"),
        ("readonly|nbd+unix:///?socket=/s", "socket=/s is a URL, not a path; write its handler before it"),
    ],
)
def test_what_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [""]),
        ("a.img", ["a.img"]),
        ("a.img,", ["a.img", ""]),
        ("a[1,2].img,b.img", ["a[1", "2].img", "b.img"]),
        ("memory:1MiB,null:1MiB", ["memory:1MiB", "null:1MiB"]),
        ('log:verbs=["read","write"];prefix=x|a.img,b', ['log:verbs=["read","write"];prefix=x|a.img', "b"]),
        ('b,error:verbs=["read","write"]|a.img', ["b", 'error:verbs=["read","write"]|a.img']),
        ("readonly|a[1.img,b", ["readonly|a[1.img", "b"]),
        ("file:[1,b", ["file:[1", "b"]),
        ("readonly,b", ["readonly", "b"]),
        ('{"handler": "x", "legs": ["a", "b"]},b', ['{"handler": "x", "legs": ["a", "b"]}', "b"]),
        ("{a,b", ["{a", "b"]),
    ],
)
def test_lists(text: str, parts: list[str]) -> None:
    assert split(text) == parts


def test_options_are_checked_as_in_a_document() -> None:
    with pytest.raises(ConfigError, match=r"did you mean \"size\""):
        build(parse("memory:1MiB;sise=2"))


def test_a_file_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from vscsihba.handlers.null import NullHandler\n\nclass Mine(NullHandler):\n    name = 'mine'\n"
    )
    with build(parse(f"{path}:1MiB")) as disk:
        assert disk.geometry.size == 1 << 20
