"""Lines of the shell: a path, a command and its arguments. Parses only; nothing here runs a command.

/backstores/file create name=d1 path="/srv/my disks/d1.img" size=1GiB
"""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from vscsihba.errors import UsageError

_NAMED: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        path: Path of a node, empty for the current one; may end in ``*`` for every child.
        command: Name of the command; empty to go to the node.
        positional: Positional arguments.
        named: Arguments of the form ``name=value``.
    """

    path: str = ""
    command: str = ""
    positional: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)


def split(text: str) -> list[str]:
    """Return the words of a line, quoted as in a shell; none where it is empty or a comment.

    Raises:
        UsageError: A quote is not closed, or the line has a NUL character.
    """
    if "\0" in text:
        raise UsageError("a line cannot hold the character NUL", cure="leave it out")
    if text.lstrip().startswith("#"):
        return []
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text.strip()!r}: a quote is not closed", cure="close it") from error


def parse(words: Sequence[str], *, here: Collection[str] = ()) -> Line:
    """Return the meaning of words.

    Args:
        words: Words of one line.
        here: Names of children: a first word without a slash may be one of them.

    Raises:
        UsageError: A name is given twice.
    """
    rest = list(words)
    path = rest.pop(0) if rest and (_is_path(rest[0]) or rest[0] in here) else ""
    command = rest.pop(0) if rest else ""
    positional: list[str] = []
    named: dict[str, str] = {}
    for word in rest:
        match = _NAMED.fullmatch(word)
        if match is None:
            positional.append(word)
        elif match[1] in named:
            raise UsageError(f"{match[1]} is given twice", cure="give it once")
        else:
            named[match[1]] = match[2]
    return Line(path, command, tuple(positional), named)


def _is_path(word: str) -> bool:
    return "/" in word or word in (".", "..", "*")
