"""Persistent reservations of a backstore, which the kernel keeps (drivers/target/target_core_pr.c)."""

import re
from dataclasses import dataclass
from pathlib import Path

from vscsihba.configfs import paths

_HOLDER = re.compile(r"Initiator: ([^,\s]+)")
_TYPE = re.compile(r"Reservation Type: (.+)")
_REGISTRATION = re.compile(r"Node: ([^,\s]+)")


@dataclass(frozen=True, slots=True)
class Reservation:
    """The registrations of initiators, and the holder of the reservation.

    Attributes:
        registrants: Names of the registered initiators, one for each I_T nexus.
        type: The kernel's name of the type (SPC-5, PERSISTENT RESERVE OUT); None if nobody holds it.
        holder: Name of the initiator that holds it; None if nobody does.
    """

    registrants: tuple[str, ...] = ()
    type: str | None = None
    holder: str | None = None


def reservation_of(index: int, backstore: str) -> Reservation | None:
    """Return the reservation of ``core/user_<index>/<backstore>``; None if no initiator is registered."""
    directory = paths.core() / f"user_{index}" / backstore / "pr"
    registrants = tuple(_REGISTRATION.findall(paths.read(directory / "res_pr_registered_i_pts") or ""))
    if not registrants:
        return None
    kind = _find(_TYPE, directory / "res_pr_type")
    return Reservation(registrants, kind, _find(_HOLDER, directory / "res_holder"))


def _find(pattern: re.Pattern[str], file: Path) -> str | None:
    match = pattern.search(paths.read(file) or "")
    return None if match is None else match[1]
