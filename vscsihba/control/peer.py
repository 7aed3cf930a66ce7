"""The process at the other end of a Unix socket, according to the kernel, and its permission to connect."""

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
    """The process that connected, as it was at that time.

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
        """Return the process at the other end of a connection (unix(7), SO_PEERCRED)."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        pid, uid, gid = struct.unpack("iII", credentials)
        try:
            more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST)
        except OSError:  # more than 256 groups, or an older kernel
            more = b""
        return cls(pid, uid, frozenset({gid, *struct.unpack(f"{len(more) // 4}I", more)}))


Allowed = Callable[[Peer], bool]
"""Returns whether a peer may use a socket."""


def root_only(peer: Peer) -> bool:
    """Allow root."""
    return peer.uid == 0


def root_or_group(name: str) -> Allowed:
    """Allow root, and the members of a group if it exists."""

    def allowed(peer: Peer) -> bool:
        return root_only(peer) or group_id(name) in peer.groups

    return allowed


def group_id(name: str) -> int | None:
    """Return the id of a group, None if no group has that name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
