"""What a logical unit keeps for its next life, in a file of its own named after its serial number."""

import contextlib
import os
import tempfile
from pathlib import Path

from vscsihba.errors import HostError

STATE = Path("/var/lib/vscsihba/units")


class UnitState:
    """The saved state of one logical unit: saved mode pages and the like.

    Args:
        serial: The unit's serial number.
        directory: Where the files are kept, made when first needed.
    """

    def __init__(self, serial: str, directory: Path = STATE) -> None:
        self._path = directory / f"{serial}.json"

    def load(self) -> bytes:
        """Return what was saved last, empty if nothing was.

        Raises:
            HostError: It cannot be read.
        """
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise HostError(f"{self._path}: {error.strerror}") from error

    def save(self, state: bytes) -> None:
        """Replace what was saved: the old or the new is there afterwards, never a part.

        Raises:
            OSError: It cannot be stored.
        """
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=self._path.parent, prefix=f"{self._path.name}.")
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(state)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
