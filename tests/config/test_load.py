"""Reading documents: the result is canonical, and every error has a place and a cure."""

import json
from pathlib import Path

import pytest

from vscsihba.config.dump import builtins, dump
from vscsihba.config.load import load, parse, warnings
from vscsihba.config.model import Document, Hba, Lun
from vscsihba.errors import ConfigError, HostError, UsageError, VscsihbaError

BASE = Path("/srv")

WHOLE = """\
{
  // what this machine shows
  "version": 1,
  "backstores": {
    "boot": {"handler": "file", "path": "boot.img", "size": "10GiB", "block_size": 4096},
    "scratch": {"handler": "memory", "size": "256MiB"},
    "vault": {"handler": "encrypt", "key_file": "vault.key", "next": {"handler": "file", "path": "/v.img"}}
  },
  "hbas": [
    {"id": 7, "luns": [{"lun": 0, "backstore": "scratch", "removable": true}]},
    {"id": 0, "engines": 2, "luns": [
      {"lun": 1, "backstore": "vault", "read_only": true},
      {"lun": 0, "backstore": "boot"}
    ]}
  ]
}
"""


MISTAKES = [
    lines.split("\n")
    for lines in (Path(__file__).parent / "mistakes.txt").read_text().rstrip().split("\n\n")[1:]
]


def read(text: str) -> Document:
    return parse(text.encode(), BASE)


def test_document_is_read_whole() -> None:
    assert read(WHOLE) == Document(
        backstores={
            "boot": {"handler": "file", "path": "/srv/boot.img", "size": "10GiB", "block_size": 4096},
            "scratch": {"handler": "memory", "size": "256MiB"},
            "vault": {
                "handler": "encrypt",
                "key_file": "/srv/vault.key",
                "next": {"handler": "file", "path": "/v.img"},
            },
        },
        hbas=(
            Hba(0, engines=2, luns=(Lun(0, "boot"), Lun(1, "vault", read_only=True))),
            Hba(7, luns=(Lun(0, "scratch", removable=True),)),
        ),
    )


def test_paths_begin_where_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "disks.json"
    path.write_text(WHOLE)
    assert load(path).backstores["boot"]["path"] == str(tmp_path / "boot.img")


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json: No such file"):
        load(tmp_path / "none.json")


def test_the_least_document_is_empty() -> None:
    assert read('{"version": 1}').empty


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('"a.img"', '{"handler": "file", "path": "/srv/a.img"}'),
        ('{"handler": "memory", "size": "1GiB"}', '{"size": 1073741824, "handler": "memory"}'),
        (
            '{"handler": "memory", "size": "1 GiB"}',
            '{"size": "1024M", "block_size": 512, "handler": "memory"}',
        ),
        (
            '{"handler": "readonly", "next": "a"}',
            '{"handler": "readonly", "next": {"handler": "file", "path": "a", "read_only": true}}',
        ),
        (
            '{"handler": "error", "next": "a"}',
            '{"handler": "error", "verbs": ["read", "write"], "next": "a"}',
        ),
    ],
)
def test_documents_that_mean_the_same_are_equal(one: str, other: str) -> None:
    found = [read(f'{{"version": 1, "backstores": {{"a": {stack}}}}}') for stack in (one, other)]
    assert found[0] == found[1]
    assert dump(found[0]) == dump(found[1])


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES)
def test_mistake_is_named_with_place_and_cure(old: str, new: str, said: str) -> None:
    assert old in WHOLE
    with pytest.raises(ConfigError) as caught:
        read(WHOLE.replace(old, new, 1))
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("text", "place", "message", "cure"),
    [
        (
            b"",
            "line 1, column 1",
            "this is not JSON: Expecting value",
            'it is empty; the least is {"version": 1}',
        ),
        (
            b'{\n"version": 1,\n}',
            "line 2, column 13",
            "this is not JSON: a comma stands before the end of a list or object",
            "remove it",
        ),
        (
            b'{"hbas": [1,\n\n ]}',
            "line 1, column 12",
            "this is not JSON: a comma stands before the end of a list or object",
            "remove it",
        ),
        (
            b"{'version': 1}",
            "line 1, column 2",
            "this is not JSON: Expecting property name enclosed in double quotes",
            'write text in double quotes: "..."',
        ),
        (
            b'{"version": 1 // one\n}',
            "line 1, column 15",
            "this is not JSON: Expecting ',' delimiter",
            "a comment needs a line of its own",
        ),
        (
            b'// a\n// b\n{"version": 1 "x"}',
            "line 3, column 15",
            "this is not JSON: Expecting ',' delimiter",
            "look there, and at the end of the line before",
        ),
        (b'{\n"a": "\xff"}', "line 2, column 7", "this is not UTF-8", "save the document as UTF-8"),
        (b"[]", "$", "it cannot be []", "use an object, {...}"),
        (b"null", "$", "it cannot be null", "use an object, {...}"),
        (b'{"version": 1, "hbas": {}}', "$.hbas", "it cannot be {}", "use a list, [...]"),
        (b'{"version": 1, "backstores": []}', "$.backstores", "it cannot be []", "use an object, {...}"),
        (b'{"version": 1, "hbas": [[]]}', "$.hbas[0]", "it cannot be []", "use an object, {...}"),
        (
            b"[" * 100 + b"]" * 100,
            "$" + "[0]" * 65,
            "nested more than 64 deep",
            "no disk has that many layers",
        ),
        (b"[" * 100_000, "$", "nested more than 64 deep", "no disk has that many layers"),
    ],
)
def test_text_that_is_no_document_is_refused(text: bytes, place: str, message: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, BASE)
    assert str(caught.value) == f"{place}: {message}; {cure}"


def test_number_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="a number is out of range"):
        read(WHOLE.replace("4096", "9" * 5000))


def test_byte_order_mark_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"version": 1}', encoding="utf-8-sig")
    assert load(path).empty


def test_comment_is_a_line_and_nothing_in_a_text() -> None:
    found = read('  // first\n{"version": 1, "backstores": {"a": "//x/y"}}\n\t// last')
    assert found.backstores["a"]["path"] == "//x/y"


def test_backstore_without_a_lun_is_a_warning() -> None:
    assert warnings(read('{"version": 1, "backstores": {"a": "/a.img"}}')) == [
        "$.backstores.a: this backstore has no LUN"
    ]
    assert warnings(read(WHOLE)) == []


@pytest.mark.parametrize(("engines", "warned"), [(1, False), (2, True)])
def test_memory_that_several_engines_take_turns_at_is_a_warning(engines: int, warned: bool) -> None:
    found = read(f"""{{
        "version": 1,
        "backstores": {{
            "a": {{"handler": "stats", "next": {{"handler": "memory", "size": "1MiB"}}}},
            "b": "/b.img"
        }},
        "hbas": [{{"id": 3, "engines": {engines}, "luns": [
            {{"lun": 0, "backstore": "a"}}, {{"lun": 1, "backstore": "b"}}
        ]}}]
    }}""")
    said = "$.hbas[0].engines: the content of a is lost when its LUN moves to another engine"
    assert warnings(found) == ([said] if warned else [])


def test_document_written_and_read_again_is_the_same() -> None:
    document = read(WHOLE)
    assert read(dump(document)) == document
    assert json.loads(dump(document)) == builtins(document)


def test_document_is_written_as_people_write_it() -> None:
    text = dump(read(WHOLE))
    assert '\n    "scratch": {"handler": "memory", "size": "256MiB"},\n' in text
    assert max(map(len, text.splitlines())) <= 110


def test_file_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="/dev/zero is too large for a document"):
        load(Path("/dev/zero"))


HANDLERS = """
from vscsihba.block import Geometry
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler

class Mine(Handler):
    name = "mine"

    class Options(Handler.Options, kw_only=True):
        how: str = ""

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        if options.how == "usage":
            raise UsageError("not so", cure="another way")
        if options.how == "host":
            raise HostError("no such package", cure="install it")
        if options.how == "bug":
            raise ZeroDivisionError("two\\nlines")

    @property
    def geometry(self):
        return Geometry(512)

    def read(self, offset, views):
        pass
"""


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("usage", ConfigError, "$.backstores.a: not so; another way"),
        ("host", HostError, "$.backstores.a: no such package; install it"),
        (
            "bug",
            ConfigError,
            (
                "$.backstores.a: a handler raised an exception for its options: "
                "ZeroDivisionError: two lines; correct the handler"
            ),
        ),
    ],
)
def test_an_error_of_a_handler_in_a_file_gets_a_place(
    tmp_path: Path, how: str, kind: type[VscsihbaError], said: str
) -> None:
    (tmp_path / "mine.py").write_text(HANDLERS)
    stack = {"handler": "stats", "next": {"handler": "mine.py", "how": how}}
    with pytest.raises(kind) as caught:
        parse(json.dumps({"version": 1, "backstores": {"a": stack}}).encode(), tmp_path)
    assert str(caught.value) == said


def test_handler_in_a_file_is_named_by_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANDLERS)
    document = parse(b'{"version": 1, "backstores": {"a": {"handler": "mine.py:mine"}}}', tmp_path)
    assert document.backstores["a"] == {"handler": f"{tmp_path}/mine.py:mine"}
