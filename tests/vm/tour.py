"""The tour of the README: what is typed there, and what is shown after it. Reads the page, runs nothing."""

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"

_PROMPT = re.compile(r"(# |/> )(.*)")
_SPAN = r"\d+ (?:d|h|min|s)\b(?: \d+ (?:h|min|s)\b)?"
_PARTS = re.compile(
    r"(?P<dots>\.{3,})|(?P<disk>\bsd[a-z]\b)|(?P<name>\bscsi-[0-9a-f]{16,})"
    rf"|(?P<span>\b{_SPAN})|(?P<number>\b\d+\b)"
    r"|(?P<blanks> +)|."
)
_INSTEAD = {
    "span": _SPAN,
    "dots": r"\.{3,}",
    "disk": "sd[a-z]+",
    "name": "scsi-[0-9a-f]{16,}",
    "number": r"\d+",
    "blanks": " +",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One command.

    Attributes:
        prompt: Where it is typed: ``"#"`` or ``"/>"``.
        typed: Its lines.
        shown: The output that follows.
    """

    prompt: str
    typed: tuple[str, ...]
    shown: tuple[str, ...]


def steps(page: str, heading: str) -> list[Step]:
    """Return the commands in the console blocks below a heading of a page."""
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [step for block in blocks for step in _steps(block.splitlines())]


def _steps(lines: list[str]) -> list[Step]:
    found: list[Step] = []
    while lines:
        prompt = _PROMPT.fullmatch(lines.pop(0))
        assert prompt is not None, "a block begins with a command"
        typed = [prompt[2]]
        if "<<END" in typed[0]:
            while typed[-1] != "END":
                typed.append(lines.pop(0))
        shown = []
        while lines and not _PROMPT.fullmatch(lines[0]):
            shown.append(lines.pop(0))
        found.append(Step(prompt[1].strip(), tuple(typed), tuple(shown)))
    return found


def pattern(shown: str, *, exact_numbers: bool) -> str:
    """Return the pattern of a line of the page: letters of disks and widths of gaps may differ.

    Args:
        shown: The line.
        exact_numbers: They are no pids, or times.
    """

    def instead(part: re.Match[str]) -> str:
        kind = part.lastgroup
        if kind is None or (kind == "number" and exact_numbers):
            return re.escape(part[0])
        return _INSTEAD[kind]

    return _PARTS.sub(instead, shown.rstrip())
