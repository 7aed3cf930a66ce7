"""The number of files that this process may have open: raised at its start, since every LUN takes several.

A shell allows 1,024, enough for some 250 LUNs; the hard limit is usually 524,288 or more. Only programs that
use select(2) need the lower one (setrlimit(2), RLIMIT_NOFILE), and this one does not.
"""

import logging
import resource
from typing import Final

log = logging.getLogger(__name__)

PER_LUN: Final = 8
"""Descriptors that a LUN of a plain file takes in an engine (ring, lock, journal, file, queues), rounded up.
Each further layer or leg may take two more."""

_OTHERS: Final = 64
"""Descriptors of a process without LUNs, rounded up."""


def raise_limit() -> int:
    """Let this process have as many files open as its hard limit allows; return how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("the limit of open files stays %d: %s", soft, error)
            return soft
    return hard


def luns_within(files: int) -> int:
    """Return how many LUNs of plain files an engine can serve with so many descriptors."""
    return max(0, (files - _OTHERS) // PER_LUN)
