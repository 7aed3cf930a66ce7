"""The file of the manifest of an open set: saved, and put back when it could not be saved.

A save that fails may have given the file its new content all the same: the rename was done, and the sync
of the directory was not. A process that is killed then leaves the new content, and a power cut leaves any
content since the last sync. So the content in force is put back. Until then nothing is written to the disk,
and until the directory is synced no flush succeeds, and no file is removed that one of the contents names.

This module knows when that is done; the set knows what has to wait for it.
"""

import logging
import threading
from contextlib import ExitStack
from pathlib import Path

from vscsihba.errors import VscsihbaError
from vscsihba.handlers.shared.durable import sync_directory
from vscsihba.handlers.snapshot import manifest as manifest_
from vscsihba.handlers.snapshot.manifest import Manifest

log = logging.getLogger(__name__)


class ManifestFile:
    """The file of a manifest, which one process at a time changes.

    Any number of threads may use it at once.

    Args:
        path: The file.

    Attributes:
        current: The manifest in force.
        is_in_place: The file has it.

    Raises:
        UsageError, HostError: As `vscsihba.handlers.snapshot.manifest.load`.
    """

    def __init__(self, path: Path) -> None:
        self.current = manifest_.load(path)
        self._path = path
        self._changing = threading.Lock()
        self.is_in_place = True
        self._failed: Manifest | None = None
        self._is_stable = False  # a former process may have died before it had synced the directory

    @property
    def reads_alike(self) -> bool:
        """Return whether the disk reads as with the manifest in force, whichever one the file has."""
        failed = self._failed
        return failed is None or self.current.active in failed.lineage(failed.active)

    def save(self, changed: Manifest) -> None:
        """Put a new manifest on stable storage, then in force.

        Raises:
            OSError, MemoryError: That failed; the one before is in force.
        """
        with self._changing:
            self._put_back()
            with ExitStack() as failing:
                failing.callback(self._fail, changed)
                changed.save(self._path)
                failing.pop_all()
            self.current, self._is_stable = changed, True

    def put_back(self) -> None:
        """Give the file the manifest in force, which a killed process leaves then, in place of a failed one.

        Raises:
            OSError, MemoryError: That failed.
        """
        if self._failed is not None:
            with self._changing:
                self._put_back()

    def settle(self) -> None:
        """Put the manifest in force on stable storage, and no other one; a power cut leaves it then.

        Raises:
            OSError, MemoryError: That failed.
        """
        if not self._is_stable:  # nor is it while another one may be in place
            with self._changing:
                self._put_back()
                if not self._is_stable:
                    sync_directory(self._path.parent)
                    self._is_stable = True

    def _fail(self, changed: Manifest) -> None:
        """Note that a manifest could not be saved, and put back the one in force."""
        self._failed, self._is_stable, self.is_in_place = changed, False, False
        try:
            self._put_back()
        except (OSError, MemoryError) as error:
            log.warning("%s: the manifest that could not be saved may be there: %s", self._path, error)

    def _put_back(self) -> None:
        if self._failed is not None and not self._has_current():
            try:
                self.current.save(self._path)
            except OSError:
                if not self._has_current():
                    raise
            else:
                self._is_stable = True
        self._failed, self.is_in_place = None, True

    def _has_current(self) -> bool:
        """Return whether the file has the manifest in force."""
        try:
            return manifest_.load(self._path) == self.current
        except VscsihbaError:  # somebody has damaged or removed it
            return False
