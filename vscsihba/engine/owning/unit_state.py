"""What a logical unit keeps for its next life, in a file of its own named after its serial number."""

import hashlib
import logging
import re
from pathlib import Path
from typing import Final

from vscsihba.errors import HostError
from vscsihba.handlers.shared.durable import replace_file

log = logging.getLogger(__name__)

STATE = Path("/var/lib/vscsihba/units")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class UnitState:
    """The saved state of one logical unit: saved mode pages and the like.

    Args:
        serial: The unit's serial number.
        directory: Where the files are kept, made when first needed.
    """

    def __init__(self, serial: str, directory: Path = STATE) -> None:
        self._path = directory / f"{_file_name(serial)}.json"

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
            OSError: It cannot be stored; the log says why, since sense data cannot.
        """
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace_file(self._path, state)
        except OSError as error:
            log.error("%s: the state of a unit cannot be kept: %s", self._path, error.strerror)  # noqa: TRY400
            raise


def _file_name(serial: str) -> str:
    """Return a name for any serial number, which is the number itself where it can be."""
    return serial if _PLAIN.fullmatch(serial) else hashlib.sha256(serial.encode()).hexdigest()
