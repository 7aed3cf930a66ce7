"""Lines: how they are split, and what they mean."""

import pytest

from vscsihba.errors import UsageError
from vscsihba.shell.line import Line, parse, split


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", Line()),
        ("  # a comment", Line()),
        ("ls", Line(command="ls")),
        ("/hbas", Line("/hbas")),
        ("..", Line("..")),
        ("* info", Line("*", "info")),
        ("/hbas/hba0/ create d1 lun=3", Line("/hbas/hba0/", "create", ("d1",), {"lun": "3"})),
        ('create d1 path="/a b/c=d" size=', Line("", "create", ("d1",), {"path": "/a b/c=d", "size": ""})),
        ("saveconfig /a=b", Line("", "saveconfig", ("/a=b",))),
        ("create next='cow:/a|/b#c'", Line("", "create", (), {"next": "cow:/a|/b#c"})),
        ("lun0 info", Line("lun0", "info")),
    ],
)
def test_a_line_is_a_path_a_command_and_words(text: str, line: Line) -> None:
    assert parse(split(text), here={"lun0"}) == line


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("create 'd1", "a quote is not closed"),
        ("x a=1 a=2", "a is given twice"),
        ("restoreconfig /a\0b", "the character NUL"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        parse(split(text))
