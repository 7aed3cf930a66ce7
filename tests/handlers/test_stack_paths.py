import json
from pathlib import Path

import pytest

from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import Document
from vscsihba.handlers.stack_paths import Use, absolute, uses

HERE = Path("/here")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("a.img", "/here/a.img"),
        ("./a.img", "/here/a.img"),
        ("/a.img", "/a.img"),
        ({"handler": "file", "path": "a.img"}, {"handler": "file", "path": "/here/a.img"}),
        (
            {"handler": "cow", "path": "o.cow", "next": {"handler": "readonly", "next": "a.img"}},
            {"handler": "cow", "path": "/here/o.cow", "next": {"handler": "readonly", "next": "/here/a.img"}},
        ),
        (
            {"handler": "split", "legs": ["a.img", {"handler": "null", "size": 512}]},
            {"handler": "split", "legs": ["/here/a.img", {"handler": "null", "size": 512}]},
        ),
        (
            {"handler": "encrypt", "key_file": "k", "passphrase_file": "", "next": "/a.img"},
            {"handler": "encrypt", "key_file": "/here/k", "passphrase_file": "", "next": "/a.img"},
        ),
        ({"handler": "memory", "label": "a.img"}, {"handler": "memory", "label": "a.img"}),
    ],
)
def test_every_path_is_made_absolute(document: Document, expected: Document) -> None:
    before = json.dumps(document)
    assert absolute(document, Registry(), HERE) == expected
    assert json.dumps(document) == before


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"handler": 5},
        {"handler": "nosuch", "path": "a"},
        {"handler": "file", "path": 3, "next": 5, "legs": 1},
        {"handler": "readonly", "next": ""},
    ],
)
def test_what_cannot_be_meant_is_left_alone(document: Document) -> None:
    assert absolute(document, Registry(), HERE) == document
    assert not any(use.path for use in uses(document, Registry()))


def test_a_handler_in_a_file_is_found_from_anywhere() -> None:
    for name, expected in [("x.py", "/here/x.py"), ("./x.py:y", "/here/x.py:y"), ("/x.py:y", "/x.py:y")]:
        assert absolute({"handler": name}, Registry(), HERE) == {"handler": expected}


def test_who_may_share_a_file() -> None:
    below_cow = {"handler": "cow", "path": "o", "next": {"handler": "offset", "next": "base"}}
    cases: list[tuple[Document, list[Use]]] = [
        ("a", [Use("a", shared=False)]),
        ({"handler": "offset", "next": "a"}, [Use("a", shared=False)]),
        ({"handler": "file", "path": "a", "read_only": True}, [Use("a", shared=True)]),
        (below_cow, [Use("o", shared=False), Use("base", shared=True)]),
        (
            {"handler": "split", "legs": ["a", below_cow]},
            [Use("a", shared=False), Use("o", shared=False), Use("base", shared=True)],
        ),
        ({"handler": "encrypt", "key_file": "k", "next": "a"}, [Use("a", shared=False)]),
        (
            {"handler": "readonly", "next": {"handler": "encrypt", "create": True, "next": "a"}},
            [Use("a", shared=False)],
        ),
    ]
    for document, expected in cases:
        assert list(uses(document, Registry())) == expected
