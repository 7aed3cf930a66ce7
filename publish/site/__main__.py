"""Build the site into build/site: strict, so that a broken link or anchor is an error.

``python -m publish.site [FOLDER]`` (``./dev docs``).
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from publish.dist import TREE
from publish.site.pages import navigation, stage


def configuration(pages: Path, site: Path) -> dict[str, Any]:
    """Return the configuration of mkdocs: that of mkdocs.yml, with folders and navigation."""
    settings: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("mkdocs.yml").read_text())
    (api,) = [plugin["mkdocstrings"] for plugin in settings["plugins"] if isinstance(plugin, dict)]
    api["handlers"]["python"]["paths"] = [str(TREE)]
    return settings | {"docs_dir": str(pages), "site_dir": str(site), "nav": navigation()}


def main(arguments: Sequence[str]) -> int:
    """Build the site."""
    site = Path(arguments[0]).absolute() if arguments else TREE / "build" / "site"
    with tempfile.TemporaryDirectory(prefix="vscsihba-site-") as name:
        work = Path(name)
        settings = configuration(work / "pages", site)
        (work / "pages").mkdir()
        stage(work / "pages", settings["repo_url"])
        (work / "mkdocs.yml").write_text(yaml.safe_dump(settings))
        words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file"]
        done = subprocess.run([*words, str(work / "mkdocs.yml")], check=False)
    if done.returncode:
        shutil.rmtree(site, ignore_errors=True)
        return 1
    print(f"{site}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
