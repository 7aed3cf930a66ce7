"""The pages in docs/handlers: their tables of options come from the handlers themselves.

``python -m tests.handlers.pages`` writes the tables anew; a test compares them.
"""

import json
import re
from pathlib import Path
from typing import Any

from vscsihba.handlers.option_help import describe
from vscsihba.handlers.registry import Registry

PAGES = Path(__file__).resolve().parents[2] / "docs" / "handlers"
_TABLE = re.compile(r"(?<=<!-- options -->\n).*?(?=<!-- end of options -->)", re.DOTALL)
_CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
_EXAMPLE = re.compile(r"```json\n(.*?)```", re.DOTALL)


def options_of(name: str) -> str:
    """Return the table of a handler's options, in Markdown."""
    rows = [
        f"| `{option.name}` | {'(required)' if option.required else f'`{option.default}`'} "
        f"| {option.description} |"
        for option in describe(Registry().get(name).Options)
    ]
    if not rows:
        return "It has none.\n"
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) + "\n"


def with_options(name: str, page: str) -> str:
    """Return a page with its table as it should be."""
    return _TABLE.sub(lambda _: options_of(name), page)


def examples(page: str) -> list[Any]:
    """Return the documents that a page shows."""
    return [json.loads(text) for text in _EXAMPLE.findall(page)]


def from_tutorial(directory: Path, name: str) -> Path:
    """Save the handler or test `name` of the tutorial as a file of that name, and return it."""
    blocks = _CODE.findall((PAGES / "tutorial.md").read_text())
    words = "as_tests(" if name.startswith("test_") else f'name = "{name}"'
    (code,) = [code for code in blocks if words in code]
    path = directory / f"{name}.py"
    path.write_text(code)
    return path


def main() -> None:
    """Write every table anew."""
    for name in Registry().names():
        path = PAGES / f"{name}.md"
        path.write_text(with_options(name, path.read_text()))


if __name__ == "__main__":
    main()
