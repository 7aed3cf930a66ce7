"""The Debian package of this tree, for the Debian and the Python of this machine.

``python -m publish.deb [--revision N] [FOLDER]`` (``./dev deb``) writes it into build/deb. The Python
packages that Debian has not, or has too old, are fetched once into build/deb-wheels; the build itself has no
network. Knows dpkg-buildpackage and lintian; the contents of the package are listed in packaging/debian.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from publish.dist import TREE, DistError, copy_tree, epoch
from vscsihba import __version__

WHEELS: Final = TREE / "build" / "deb-wheels"
VENDORED: Final = ("rtslib-fb>=2.2,<3", "configshell-fb>=2.0,<3", "msgspec>=0.19,<1")
"""What the package brings along, as pyproject.toml asks for it."""
_TOOLS: Final = ("setuptools>=77",)
"""What the build needs besides; it is not in the package."""


def changelog(version: str, time_: int) -> str:
    """Return debian/changelog with one entry; CHANGELOG.md has the changes."""
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(time_))
    return (
        f"vscsihba ({version}) unstable; urgency=medium\n\n"
        "  * The changes are in /usr/share/doc/vscsihba/CHANGELOG.md.gz.\n\n"
        f" -- The vscsihba maintainers <vscsihba@users.noreply.github.com>  {date}\n"
    )


def fetch_wheels() -> None:
    """Fetch the wheels that the package is made of, unless they are there.

    Raises:
        DistError: They cannot be fetched.
    """
    wanted = "\n".join([*VENDORED, *_TOOLS, sys.version, ""])
    stamp = WHEELS / ".wanted"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(WHEELS, ignore_errors=True)
    words = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
    _run([*words, "--only-binary=:all:", "--dest", str(WHEELS), *VENDORED, *_TOOLS], TREE)
    stamp.write_text(wanted)


def build(folder: Path, revision: int, *, check: bool) -> Path:
    """Build the package into `folder` and return it.

    Args:
        folder: Folder of the package.
        revision: Debian revision; a higher one is an upgrade.
        check: Check the package with lintian, too.

    Raises:
        DistError: The build failed, or lintian found something.
    """
    fetch_wheels()
    version, time_ = f"{__version__}+{revision}", epoch()
    with tempfile.TemporaryDirectory(prefix="vscsihba-deb-", dir=TREE / "build") as name:
        source = Path(name) / f"vscsihba-{__version__}"
        copy_tree(source)
        shutil.copytree(source / "packaging" / "debian", source / "debian")
        shutil.copytree(WHEELS, source / "debian" / "wheels")
        (source / "debian" / "changelog").write_text(changelog(version, time_))
        words = ["dpkg-buildpackage", "--build=binary", "--no-sign"]
        _run(_offline(words), source, SOURCE_DATE_EPOCH=str(time_))
        (made,) = Path(name).glob("*.deb")
        if check:
            words = [
                "lintian",
                "--fail-on",
                "error,warning",
                "--suppress-tags",
                "initial-upload-closes-no-bugs",
            ]
            _run([*words, str(made)], TREE)
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(made, folder / made.name))


def _offline(words: Sequence[str]) -> list[str]:
    """Return a command without a network, where this user may make such a namespace."""
    unshare = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-current-user"]), "--"]
    allowed = subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0
    return [*(unshare if allowed else []), *words]


def _run(words: Sequence[str], folder: Path, **environment: str) -> None:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    kept["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        umask=0o022,
        env={**kept, **environment},
    )
    if done.returncode:
        raise DistError(f"{words[0]}: exit {done.returncode}\n{done.stdout[-6000:]}{done.stderr[-4000:]}")


def main(arguments: Sequence[str]) -> int:
    """Build the package and print its path."""
    parser = argparse.ArgumentParser(prog="./dev deb", description="Build the Debian package.")
    parser.add_argument("folder", nargs="?", type=Path, default=TREE / "build" / "deb")
    parser.add_argument("--revision", type=int, default=1, help="a higher one is an upgrade (default: 1)")
    parser.add_argument("--no-lintian", action="store_true", help="do not check the package")
    options = parser.parse_args(arguments)
    try:
        print(build(options.folder, options.revision, check=not options.no_lintian))
    except DistError as error:
        print(f"deb: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
