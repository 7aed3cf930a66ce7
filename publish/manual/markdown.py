"""Markdown of docs/ written into a page of the manual.

A table becomes a list with its first column as tags, since a page is read at 80 columns. Knows the parts of
Markdown that docs/ uses, and no page in particular.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from publish.manual.roff import Page, bold, escaped, literal

_WIDTH: Final = 71
"""Columns of an example that fit into a page at 80 columns."""

_BODY_COLUMNS: Final = ("meaning", "does", "description", "shows", "means", "content")
"""Headings of the column that is the text of a list; other columns follow it under their headings."""


def sections(text: str) -> dict[str, str]:
    """Return the sections of a page by their headings of the second level; the text before them as ""."""
    found, current, fenced = {"": ""}, "", False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            current = line[3:].strip()
            found[current] = ""
        elif not (line.startswith("# ") and not fenced):
            found[current] += line
    return found


def write(page: Page, text: str) -> None:
    """Write a text into a page; its headings become sections and subsections."""
    _Writer(page).write(_parsed(text))


def _parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))


class _Writer:
    def __init__(self, page: Page) -> None:
        self._page = page
        self._marks: list[str] = []
        """Marks of the lists that are open, innermost last."""
        self._fresh = False
        """Whether an item of a list has begun, and nothing of it is written."""

    def write(self, tokens: Sequence[Token]) -> None:
        """Write all tokens of a text."""
        at = 0
        while at < len(tokens):
            token = tokens[at]
            if token.type == "table_open":
                end = next(i for i in range(at, len(tokens)) if tokens[i].type == "table_close")
                self._table(tokens[at:end])
                at = end
            else:
                self._token(token, tokens[at + 1] if at + 1 < len(tokens) else token)
            at += 1

    def _token(self, token: Token, following: Token) -> None:
        match token.type:
            case "heading_open":
                text = plain(following)
                (self._page.heading if token.tag in {"h1", "h2"} else self._page.subheading)(text)
            case "paragraph_open":
                self._paragraph(inline(following.children or []))
            case "fence" | "code_block":
                self._code(token.content, token.info)
            case "bullet_list_open":
                self._marks.append("\\(bu")
            case "ordered_list_open":
                self._marks.append("1.")
            case "list_item_open":
                if token.info:
                    self._marks[-1] = f"{token.info}."
                self._fresh = True
            case "bullet_list_close" | "ordered_list_close":
                self._marks.pop()

    def _paragraph(self, text: str) -> None:
        if not self._marks:
            self._page.paragraph(text)
        elif self._fresh:
            self._page.bullet(text, self._marks[-1])
        else:
            self._page.continuation(text)
        self._fresh = False

    def _code(self, text: str, language: str) -> None:
        """Write lines as they are, or in a form that fits into the width of a page."""
        lines = [line for line in text.splitlines() if line.strip()]
        if max(map(len, lines), default=0) <= _WIDTH:
            self._page.code(text)
            return
        commented = [re.fullmatch(r"(\S.*?\S) *(?: {2}|(?<=\S) )# (.*)", line) for line in lines]
        if any(commented):
            for line, found in zip(lines, commented, strict=True):
                self._page.tagged(bold(found[1] if found else line), escaped(found[2]) if found else "")
            return
        self._page.code(_indented(text) if language == "json" else text)

    def _table(self, tokens: Sequence[Token]) -> None:
        heads = [plain(tokens[i + 1]) for i, each in enumerate(tokens) if each.type == "th_open"]
        known = (i for i, head in enumerate(heads) if i and head in _BODY_COLUMNS)
        body = next(known, 1 if len(heads) == 2 else 0)
        for cells in _rows(tokens):
            texts = [inline(cells[body])] if 0 < body < len(cells) else []
            texts += [
                f"{escaped(heads[i])}: {inline(cell)}" if heads[i] else inline(cell)
                for i, cell in enumerate(cells)
                if i not in {0, body} and inline(cell).strip()
            ]
            self._page.tagged(inline(cells[0]) or "\\&", "\n.br\n".join(filter(str.strip, texts)))


def _indented(text: str) -> str:
    """Return JSON with a line for each key; text that is none as it is."""
    try:
        return json.dumps(json.loads(text), indent=2)
    except json.JSONDecodeError:
        return text


def _rows(tokens: Sequence[Token]) -> Iterator[list[list[Token]]]:
    row: list[list[Token]] = []
    for i, token in enumerate(tokens):
        if token.type == "td_open":
            row.append(tokens[i + 1].children or [])
        elif token.type == "tr_close" and row:
            yield row
            row = []


def plain(token: Token) -> str:
    """Return the words of an inline token without any markup."""
    return "".join(each.content if each.type != "softbreak" else " " for each in token.children or [])


def inline(tokens: Sequence[Token]) -> str:
    """Return inline tokens as formatted text: code and strong words are bold, links are their text."""
    written: list[str] = []
    link = ""
    for token in tokens:
        match token.type:
            case "text":
                written.append(escaped(token.content))
            case "code_inline":
                written.append(bold(token.content))
            case "softbreak" | "hardbreak":
                written.append("\n")
            case "strong_open" | "em_open":
                written.append("\\fB" if token.type == "strong_open" else "\\fI")
            case "strong_close" | "em_close":
                written.append("\\fR")
            case "link_open":
                link = str(token.attrGet("href") or "")
            case "link_close":
                if link.startswith(("http:", "https:")):
                    written.append(f" <{literal(link)}>")
    return "".join(written)
