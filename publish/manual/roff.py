"""Text in the language of man pages (man(7)), for groff at any width; knows nothing of its subject."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_BREAKABLE: Final = 24
"""A longer word without a blank may be broken behind its punctuation."""

_SPECIAL: Final = {"\\": "\\e", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}


def escaped(text: str) -> str:
    """Return text with everything that groff would interpret escaped."""
    return "".join(_character(each) for each in text)


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    return character if character.isascii() else f"\\[u{ord(character):04X}]"


def literal(text: str) -> str:
    """Return something that is typed: its dashes are those of the keyboard, and a long word may be broken."""
    words = (_broken(word) for word in text.split(" "))
    return " ".join(words)


def _broken(word: str) -> str:
    said = escaped(word).replace("-", "\\-")
    if len(word) <= _BREAKABLE:
        return said
    return re.sub(r"([/,|:;=&?}])(?=[^/])", r"\1\\:", said)


def bold(text: str) -> str:
    """Return something that is typed, in bold."""
    return f"\\fB{literal(text)}\\fR"


def italic(text: str) -> str:
    """Return a word that stands for something, in italics."""
    return f"\\fI{literal(text)}\\fR"


class Page:
    """One page that is being written.

    Args:
        name: Name of the page.
        section: Section of the manual, such as "8".
        summary: Purpose, in one line, for apropos(1).
        date: Date in its footer, YYYY-MM-DD.
        source: Program and version in its footer.
    """

    def __init__(self, name: str, section: str, summary: str, *, date: str, source: str) -> None:
        self.name, self.section, self.summary = name, section, summary
        self._lines = [
            f'.TH {_quoted(name.upper())} {section} "{date}" {_quoted(source)} {_quoted(_MANUALS[section])}',
            ".nh",
            ".ad l",
            ".SH NAME",
            f"{literal(name)} \\- {escaped(summary)}",
        ]

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._lines.append(f".SH {_quoted(escaped(text.upper()))}")

    def subheading(self, text: str) -> None:
        """Begin a subsection."""
        self._lines.append(f".SS {_quoted(literal(text))}")

    def paragraph(self, formatted: str) -> None:
        """Write a paragraph of formatted text."""
        if formatted.strip():
            self._lines += [".PP", *_safe(formatted)]

    def continuation(self, formatted: str) -> None:
        """Write a paragraph with the indentation of the one before it."""
        if formatted.strip():
            self._lines += [".IP", *_safe(formatted)]

    def tagged(self, tag: str, formatted: str) -> None:
        """Write a paragraph with a formatted tag in front of it."""
        self._lines += [".TP", *_safe(tag), *(_safe(formatted) or ["\\&"])]

    @contextmanager
    def indented(self) -> Iterator[None]:
        """Return a context whose paragraphs are indented."""
        self._lines.append(".RS")
        yield
        self._lines.append(".RE")

    def bullet(self, formatted: str, mark: str = "\\(bu") -> None:
        """Write a paragraph of a list."""
        self._lines += [f'.IP "{mark}" 3', *_safe(formatted)]

    def code(self, text: str) -> None:
        """Write lines as they are."""
        lines = [_first(literal_line(line)) for line in text.rstrip("\n").split("\n")]
        self._lines += [".PP", ".RS 2", ".EX", *lines, ".EE", ".RE"]

    def text(self) -> str:
        """Return the page as it is stored."""
        return "\n".join(self._lines) + "\n"


_MANUALS: Final = {
    "1": "User commands",
    "5": "File formats",
    "7": "Miscellaneous",
    "8": "System administration",
}


def literal_line(line: str) -> str:
    """Return a line of an example, with blanks as they are and without places to break it."""
    return escaped(line).replace("-", "\\-")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "\\(dq") + '"'


def _safe(formatted: str) -> list[str]:
    return [_first(line.strip()) for line in formatted.split("\n") if line.strip()]


def _first(line: str) -> str:
    """Return a line that begins with no request; ``.br`` is one that this package writes itself."""
    if line == ".br":
        return line
    return f"\\&{line}" if line[:1] in {".", "'"} else line
