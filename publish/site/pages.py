"""The pages of the site and its navigation, by Diataxis: learn, do, look up, understand.

A page keeps its path in the tree, so that links between pages hold on the site as they do in the tree. A
page of docs/ that no list here names is in the reference.
"""

import re
from pathlib import Path
from typing import Any, Final

from publish.dist import TREE

OUTSIDE: Final = (
    *("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md"),
    *("packaging/README.md", "vagrant/README.md"),
)
"""Pages that are not in docs/."""

LEARN: Final = ("docs/handlers/tutorial.md",)
DO: Final = (
    *("packaging/README.md", "docs/daemon.md", "docs/import.md", "docs/export.md", "docs/shell.md"),
    *("docs/scale.md", "docs/sandbox.md", "docs/pytest.md", "docs/api.md"),
)
UNDERSTAND: Final = ("ARCHITECTURE.md", "docs/trust.md", "docs/ring-rules.md", "docs/mutation.md")
JOIN: Final = ("CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", "vagrant/README.md", "CHANGELOG.md")

API: Final = {
    "hba": ("vscsihba.hba", "An HBA in a few lines of Python"),
    "vscsiapi": ("vscsihba.vscsiapi", "The original's four calls"),
    "handlers-base": ("vscsihba.handlers.base", "The contract of handlers"),
    "handlers-filter": ("vscsihba.handlers.filter", "Filters: handlers that sit on another one"),
    "handlers-fan": ("vscsihba.handlers.fan", "Fans: handlers that sit on several others"),
    "handlers-options": ("vscsihba.handlers.options", "Options of handlers"),
    "block": ("vscsihba.block", "Operations, extents and buffers"),
    "testing": ("vscsihba.testing", "Tests for authors of handlers"),
    "pytest_plugin": ("vscsihba.pytest_plugin", "Fixtures of pytest"),
    "daemon-calls": ("vscsihba.daemon.calls", "The service's verbs"),
    "errors": ("vscsihba.errors", "Exceptions"),
}
"""Pages of the API reference: module and title of each."""

_LINK: Final = re.compile(r"(!?\[[^][]*\])\(([^)\s#:]+)(#[^)\s]*)?\)")


def pages() -> list[str]:
    """Return the paths of all Markdown pages of the site, sorted."""
    return sorted([*OUTSIDE, *(str(path.relative_to(TREE)) for path in (TREE / "docs").rglob("*.md"))])


def navigation() -> list[dict[str, Any]]:
    """Return the navigation of mkdocs."""
    named = {*OUTSIDE, *LEARN, *DO, *UNDERSTAND}
    rest = [page for page in pages() if page not in named]
    folders = {"Decisions": "docs/adr/", "Benchmarks": "docs/bench/"}
    reference = [page for page in rest if not page.startswith(tuple(folders.values()))]
    plain = [page for page in reference if page.count("/") == 1]
    inner: dict[str, list[str]] = {}
    for page in reference:
        if page not in plain:
            inner.setdefault(Path(page).parts[1].capitalize(), []).append(page)
    return [
        {"Home": ["README.md"]},
        {"Learn": list(LEARN)},
        {"Do": list(DO)},
        {
            "Look up": [
                *plain,
                *({title: _index_first(found)} for title, found in sorted(inner.items())),
                {"Python": [{title: f"api/{name}.md"} for name, (_, title) in API.items()]},
            ]
        },
        {
            "Understand": [
                *UNDERSTAND,
                *(
                    {title: _index_first([page for page in rest if page.startswith(folder)])}
                    for title, folder in folders.items()
                ),
            ]
        },
        {"Join": list(JOIN)},
    ]


def _index_first(found: list[str]) -> list[str]:
    return sorted(found, key=lambda page: (not page.endswith("README.md"), page))


def stage(folder: Path, repository: str) -> None:
    """Write the pages into a folder, with everything that they show or link to.

    A link to another file of the tree, such as code, becomes one to the repository; a link to a folder
    becomes one to its README.md.

    Args:
        folder: An empty folder.
        repository: URL of the repository's files.
    """
    for name in pages():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_linked(name, repository))
    for image in (TREE / "docs").rglob("*.png"):
        target = folder / image.relative_to(TREE)
        target.write_bytes(image.read_bytes())
    (folder / "api").mkdir()
    for name, (module, title) in API.items():
        (folder / "api" / f"{name}.md").write_text(f"# {title}\n\n::: {module}\n")


def _linked(name: str, repository: str) -> str:
    """Return a page with links that hold on the site."""
    known = set(pages())

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = (TREE / name).parent.joinpath(target).resolve()
        if not path.is_relative_to(TREE) or not path.exists():
            return match[0]  # mkdocs will tell
        place = path.relative_to(TREE).as_posix()
        if path.is_dir() and f"{place}/README.md" in known:
            return f"{text}({target.rstrip('/')}/README.md{anchor})"
        if place in known or path.suffix == ".png":
            return match[0]
        kind = "tree" if path.is_dir() else "blob"
        return f"{text}({repository}/{kind}/main/{place}{anchor})"

    return _LINK.sub(link, (TREE / name).read_text())
