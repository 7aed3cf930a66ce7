"""The saved state of a logical unit, in a file named after its serial number."""

import hashlib
import logging
import re
from pathlib import Path
from typing import Final

from vscsihba.errors import HostError
from vscsihba.handlers.shared.durable import make_directory, replace_file

log = logging.getLogger(__name__)

STATE = Path("/var/lib/vscsihba/units")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class UnitState:
    """The saved state of one logical unit: mode pages, identifying information, an erasure under way.

    Args:
        serial: The unit's serial number.
        directory: Folder of the files, created when first needed.
    """

    def __init__(self, serial: str, directory: Path = STATE) -> None:
        self._path = directory / f"{_file_name(serial)}.json"

    def load(self) -> bytes:
        """Return the state that was saved last, empty if there is none.

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
        """Replace the saved state; a crash leaves the old or the new one, never a part.

        Raises:
            OSError: It cannot be stored; the reason is logged, since sense data has no room for it.
        """
        try:
            make_directory(self._path.parent)
            replace_file(self._path, state)
        except OSError as error:
            log.error("%s: the state of a unit cannot be saved: %s", self._path, error.strerror)  # noqa: TRY400
            raise


def _file_name(serial: str) -> str:
    """Return a file name for a serial number: the number itself if it is a valid name, otherwise its hash."""
    return serial if _PLAIN.fullmatch(serial) else hashlib.sha256(serial.encode()).hexdigest()
