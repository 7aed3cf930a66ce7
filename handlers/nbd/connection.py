"""One connection to a server: negotiated by libnbd, then driven without blocking.

Knows one connection. One that has lost its server is dead for ever; `link` replaces it.
"""

import os
import select
import socket
from collections.abc import Callable

from vscsihba.handlers.nbd.address import Address
from vscsihba.handlers.nbd.encrypted import EncryptedTransmission
from vscsihba.handlers.nbd.negotiation import Negotiation
from vscsihba.handlers.nbd.requests import Completed, Export, Request
from vscsihba.handlers.nbd.transmission import SocketTransmission, Transmission


class Connection:
    """A connection to an export. Requests are begun by one thread at a time; the rest is for any thread.

    Args:
        address: The export.
        completed: Takes the requests that have ended, from within calls of this class.
        until: Time (CLOCK_MONOTONIC) to give up.
        wanted: Returns whether to go on.
        silence: Seconds after which a machine that does not answer, over TCP, counts as lost, at most.

    Attributes:
        export: Properties of the export.
        fd: Descriptor of the socket; it is closed by `kill`, and by nothing else.
        queue: See `Transmission.queue`; likewise `send`, `notify` and `kill`.
        waits_for_output: For the owner: it waits until the socket takes more bytes.

    Raises:
        UnknownExportError: The server has no such export.
        OSError: The server cannot be reached, or does not speak the protocol.
    """

    def __init__(
        self,
        address: Address,
        completed: Completed,
        *,
        until: float,
        wanted: Callable[[], bool],
        silence: float,
    ) -> None:
        negotiation = Negotiation(address, until, wanted)
        self.export: Export = negotiation.run()
        handle = negotiation.handle
        # libnbd closes its descriptor at any time, and its number may be another one's then.
        copy = socket.socket(fileno=os.dup(handle.aio_get_fd()))
        self.fd = copy.fileno()
        self._transmission: Transmission
        if address.encrypted:
            self._transmission = EncryptedTransmission(handle, copy, completed)
        else:
            structured = handle.get_structured_replies_negotiated()
            self._transmission = SocketTransmission(copy, completed, structured=structured)
        _watch_network(copy, silence)
        # The methods of the transmission, without a function in between: they run for each command.
        self.queue, self.send = self._transmission.queue, self._transmission.send
        self.notify, self.kill = self._transmission.notify, self._transmission.kill
        self.waits_for_output = False

    @property
    def over(self) -> bool:
        """Whether the connection has ended; the requests under way have ended then."""
        return self._transmission.over

    def begin(self, request: Request) -> None:
        """Begin a request and send it; it may end before this returns.

        Raises:
            OSError: The connection has ended.
        """
        self.queue(request)
        self.send()

    def wait(self, seconds: float) -> None:
        """Wait until the connection has work, for some seconds at most, and do it.

        Raises:
            OSError: The connection has ended.
        """
        poll = select.poll()
        poll.register(self.fd, self.events)
        for _, events in poll.poll(seconds * 1000):
            self.notify(events)

    @property
    def events(self) -> int:
        """The events that the connection waits for, as of poll(2)."""
        return select.POLLIN | (select.POLLOUT if self._transmission.wants_output else 0)

    def part(self) -> bool:
        """Tell the server that no more requests come; see `Transmission.part`."""
        return self._transmission.part()

    def leave(self) -> None:
        """Take leave of the server, as far as that needs no waiting, and end the connection."""
        self.part()
        self.kill()

    def hand_over(self, completed: Completed) -> None:
        """Let another queue take the requests that end; none may be under way."""
        self._transmission.completed = completed


def _watch_network(sock: socket.socket, silence: float) -> None:
    """Have the kernel end a TCP connection whose other machine is gone, early enough to replace it."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    seconds = max(1, int(silence / 4))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000 * seconds)
