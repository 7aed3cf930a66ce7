"""The link to a daemon: the handler `nbd` on the daemon's socket.

It replaces lost connections and sends again what had no answer. Acknowledged writes are the concern of
`logged_verbs`, so the link keeps none, and its flush reports none as lost.
"""

from pathlib import Path
from urllib.parse import quote

from vscsihba.handlers.nbd.handler import NbdHandler
from vscsihba.handlers.nbd.options import NbdOptions
from vscsihba.handlers.qemu.daemon import EXPORT


def open_link(socket: Path, *, timeout: float, read_only: bool) -> NbdHandler:
    """Return an open link.

    Args:
        socket: Socket of the daemon, and of those that take its place.
        timeout: Seconds after which a request fails.
        read_only: The daemon takes no writes.

    Raises:
        UsageError, HostError: The daemon does not answer as it should.
    """
    options = NbdOptions(
        uri=f"nbd+unix:///{EXPORT}?socket={quote(str(socket))}",
        read_only=read_only,
        timeout=timeout,
        connections=1,  # the daemon has one thread
        unflushed=0,
    )
    link = NbdHandler(options, private=True)
    link.open()
    return link
