"""The limit of open files: raised when the process starts, since every LUN takes several descriptors.

A shell allows 1,024, enough for some 250 LUNs; the hard limit is usually 524,288 or more. Only programs that
use select(2) need the lower limit (setrlimit(2), RLIMIT_NOFILE); an engine does not use it.
"""

import logging
import resource
from typing import Final

log = logging.getLogger(__name__)

PER_LUN: Final = 8
"""Descriptors of a LUN of a plain file (ring, lock, journal, file, queues), rounded up; each further layer or
leg may take two more."""

_OTHERS: Final = 64
"""Descriptors of an engine without LUNs, rounded up."""


def raise_limit() -> int:
    """Raise the limit of open files to the hard limit, and return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("the limit of open files stays %d: %s", soft, error)
            return soft
    return hard


def luns_within(files: int) -> int:
    """Return the number of LUNs of plain files that an engine can serve with `files` descriptors."""
    return max(0, (files - _OTHERS) // PER_LUN)
