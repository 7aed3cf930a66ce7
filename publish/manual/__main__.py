"""Write the manual pages into a folder, in the subfolders that man(1) reads: man8/vscsihba.8 and so on."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from publish.manual.pages import TREE, aliases, all_pages


def date() -> str:
    """Return the date of the pages: of ``SOURCE_DATE_EPOCH``, else of the last commit, else today's."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        words = ["git", "-C", str(TREE), "log", "-1", "--format=%ct"]
        given = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return time.strftime("%Y-%m-%d", time.gmtime(int(given) if given else None))


def write(folder: Path) -> list[Path]:
    """Write every page, and return them all; those that are other names of one included."""
    texts = {f"{page.name}.{page.section}": page.text() for page in all_pages(date())}
    texts |= {name: f".so {target}\n" for name, target in aliases().items()}
    written = []
    for name, text in texts.items():
        path = folder / f"man{name[-1]}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)
    return written


def main(arguments: Sequence[str]) -> int:
    """Write the pages, and print how many there are."""
    if len(arguments) != 1:
        print("usage: python -m publish.manual FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    print(f"{len(write(folder))} pages in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
