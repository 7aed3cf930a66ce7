"""Notes of killed processes: finding the one that belongs to an overlay file.

A copy of an overlay (cp, a snapshot of its volume) names the same session as the file that it
was made of, so the name of a note is not enough. A note belongs to the file that it was made
for, which it knows by device and inode, and to a process that is dead: as long as one lives
that puts states into it, it is about another file than the one that is being opened here.

This module knows no states, and not how a file is opened.
"""

import os
from urllib.parse import quote, unquote, unquote_to_bytes

import msgspec

from vscsihba.errors import HostError
from vscsihba.handlers.shared.tmpfs_store import Recalled, recall

_LONGEST = 3000
"""Bytes of a quoted path for which the head of a note has room."""


class FileId(msgspec.Struct, frozen=True):
    """Identity of a file while the machine runs.

    Attributes:
        path: Without symbolic links, its bytes quoted as in a URL; empty if that is too long.
        device: ``st_dev`` of stat(2).
        inode: ``st_ino``.
    """

    path: str
    device: int
    inode: int

    def is_same_file(self, other: "FileId") -> bool:
        """Return whether two identities are one file, by whatever path."""
        return (self.device, self.inode) == (other.device, other.inode)

    def encode(self) -> bytes:
        """Return the medium that a note names."""
        return msgspec.json.encode(self)

    @property
    def readable(self) -> str:
        """The path as people write it."""
        return unquote(self.path, errors="replace")


def place_of(path: str, status: os.stat_result) -> FileId:
    """Return the identity of an open file."""
    quoted = quote(os.fsencode(os.path.realpath(path)))
    return FileId(quoted if len(quoted) < _LONGEST else "", status.st_dev, status.st_ino)


def note_of(session: str, place: FileId, *, recover: bool | None = None) -> Recalled | None:
    """Return the note that a killed process has left for the file at `place`, None if there is none.

    Args:
        session: Its name.
        place: Where the file is.
        recover: Where it is not clear for which file it is: True takes it for this one, False for another.

    Raises:
        HostError: There is something, and it is not clear whether it is for this file.
        OSError: It cannot be read.
    """
    note = recall(session) if session else None
    if note is None or note.in_use:
        return None
    if note.about is None:  # of a release that did not note the file
        return note
    meant = msgspec.json.decode(note.about, type=FileId)
    if meant.is_same_file(place):
        return note
    if recover is False or _is_there(meant):
        return None
    if recover:
        return note
    name = place.readable
    raise HostError(
        f"{note.path} has writes that a killed process acknowledged for the file that was {meant.readable}; "
        "whether this is that file or a copy of it cannot be seen",
        cure=f'if it is that file, on a file system that was mounted again: "vscsihba cow recover {name}"; '
        f'if it is a copy: "vscsihba cow recover --discard {name}"',
    )


def _is_there(place: FileId) -> bool:
    """Return whether the file of a note is still at its path."""
    try:
        status = os.stat(unquote_to_bytes(place.path))  # noqa: PTH116  # a Path takes no bytes
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (place.device, place.inode)
