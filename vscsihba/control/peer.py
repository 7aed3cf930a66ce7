"""Who is at the other end of a Unix socket, as the kernel says it, and who of them is let in."""

import grp
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

_SO_PEERGROUPS: Final = 59
"""``SO_PEERGROUPS`` (asm-generic/socket.h, Linux 4.13), which Python's socket module lacks."""

_MOST: Final = 1024
"""Bytes that Python's getsockopt takes: 256 groups."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as it was when it did.

    Attributes:
        pid: Its process id, 0 if it is in another pid namespace.
        uid: Its effective user id.
        groups: Its group ids, the supplementary ones too.
    """

    pid: int
    uid: int
    groups: frozenset[int]

    @classmethod
    def of(cls, connection: socket.socket) -> Self:
        """Ask the kernel who is at the other end (unix(7), SO_PEERCRED)."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        pid, uid, gid = struct.unpack("iII", credentials)
        try:
            more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST)
        except OSError:  # more than 256 groups, or a kernel that does not tell
            more = b""
        return cls(pid, uid, frozenset({gid, *struct.unpack(f"{len(more) // 4}I", more)}))


Allowed = Callable[[Peer], bool]
"""Tells whether a peer may use a socket."""


def root_only(peer: Peer) -> bool:
    """Let root in."""
    return peer.uid == 0


def root_or_group(name: str) -> Allowed:
    """Let root in, and the members of a group as long as there is one of that name."""

    def allowed(peer: Peer) -> bool:
        return root_only(peer) or group_id(name) in peer.groups

    return allowed


def group_id(name: str) -> int | None:
    """Return the id of a group, None if there is none of that name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
