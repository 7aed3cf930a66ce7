"""multipath-tools under test: multipathd on the paths to one disk of ours."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from tests.polling import wait_until
from tests.vm.shell import run

_LIMIT: Final = 90
_CONFIGURATION: Final = """\
defaults {
    find_multipaths no
    polling_interval 1
    max_polling_interval 2
}
blacklist {
    devnode ".*"
}
blacklist_exceptions {
    devnode "^sd"
}
devices {
    device {
        vendor "VSCSIHBA"
        product ".*"
        path_grouping_policy "group_by_prio"
        path_checker "tur"
        prio "iet"
        prio_args "preferredip=PREFERRED"
        failback "immediate"
        no_path_retry 60
    }
}
"""
"""As docs/export.md has it; other disks of the machine are left alone."""


class Multipath:
    """multipathd, as long as the context is entered; its maps are gone afterwards.

    Args:
        folder: For its log.
        preferred: The address of the portal whose path comes first.
    """

    def __init__(self, folder: Path, preferred: str) -> None:
        self._preferred = preferred
        self._log = folder / "multipathd.err"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        run("modprobe", "-a", "dm_multipath", "dm_service_time")
        Path("/etc/multipath.conf").write_text(_CONFIGURATION.replace("PREFERRED", self._preferred))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["multipathd", "-d"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(lambda: len(self._maps()) == 1, "a multipath map", limit=_LIMIT)
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None
        print(run("multipath", "-ll", check=False))
        self._process.terminate()
        self._process.wait(_LIMIT)
        run("multipath", "-F", check=False)
        print(self._log.read_text(errors="replace"))

    @property
    def node(self) -> Path:
        """The disk made of all paths."""
        (name,) = self._maps()
        return Path("/dev/mapper") / name

    def _maps(self) -> list[str]:
        """Return the names of the maps; none while multipathd does not answer."""
        words = run("multipathd", "show", "maps", "raw", "format", "%n", check=False).split()
        return [word for word in words if (Path("/dev/mapper") / word).exists()]

    def paths(self) -> dict[str, str]:
        """Return the state that the path checker has found, by the name of the path's disk."""
        words = run("multipathd", "show", "paths", "raw", "format", "%d %T", check=False).split()
        return dict(zip(words[::2], words[1::2], strict=False))

    def wait_for(self, some: Mapping[str, str], *, count: int, state: str | None = None) -> None:
        """Wait until some paths have these states, and `count` paths have `state`, or any."""

        def found() -> bool:
            paths = self.paths()
            counted = [each for each in paths.values() if state in (None, each)]
            return len(counted) == count and some.items() <= paths.items()

        try:
            wait_until(found, f"{count} paths with {some}", limit=_LIMIT)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.paths()}") from error

    def resize(self) -> None:
        """Have the map take the size of its paths."""
        run("multipathd", "resize", "map", self.node.name)
