"""The server of a control socket: verbs that other processes may call.

One thread reads the requests of all connections, so that a client that sends nothing, or too much, delays no
other; each complete request is carried out on a thread of its own. A connection has 5 seconds for its
request, and is closed after the answer.

If the machine lacks descriptors, threads or memory for a moment, the server retries. If its thread dies all
the same, the process ends, since nobody could control it any more.
"""

import inspect
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from vscsihba.control import wire
from vscsihba.control.inbound import Inbound
from vscsihba.control.peer import Allowed, Peer, root_only
from vscsihba.control.stream import Channel, Stream
from vscsihba.errors import HostError, UsageError, VscsihbaError
from vscsihba.threads import Died, VitalThread, end_process, repeat, start

log = logging.getLogger(__name__)

ProgressCallback = Callable[[object], None]
"""Reports progress to the client; a verb with a parameter ``progress`` gets one."""

Verb = Callable[..., object]

MAX_CONNECTIONS: Final = 32
"""Connections whose request is awaited; one more closes the one that has waited longest."""

MAX_CALLS: Final = 32
"""Requests that are carried out in parallel."""

PATIENCE: Final = 5.0
"""Seconds for a request to arrive, and for an answer to be received."""

_BACKLOG: Final = 128
"""Connections that may wait to be accepted."""

_PAUSE: Final = 0.1
"""Seconds before a retry if the machine lacks descriptors or memory."""

_AT_END: Final = 10.0
"""Seconds that `ControlServer.close` waits for running verbs."""


class ControlServer:
    """Serves verbs on a Unix socket while the context is entered.

    Args:
        path: The socket; a leftover file of that name is replaced.
        verbs: The functions that clients may call, by name. Their parameters are the request's arguments;
            they raise `VscsihbaError` or ``OSError`` and return a JSON value or a `Stream`.
        allowed: Returns whether a client may call; by default only root may. Others get an error.
        group: Group id of the socket file; None for the group of this process.
        died: Called, on the dying thread, if that fails; by default the process ends at once.

    Raises:
        HostError: The socket cannot be created.
    """

    def __init__(
        self,
        path: Path,
        verbs: Mapping[str, Verb],
        *,
        allowed: Allowed = root_only,
        group: int | None = None,
        died: Died = end_process,
    ) -> None:
        self.path = path
        self._verbs = dict(verbs)
        self._allowed = allowed
        self._group = group
        self._waiting: list[Inbound] = []
        self._calls: set[threading.Thread] = set()
        self._channels: set[Channel] = set()
        self._closing = False
        self._thread = VitalThread(self._run, "control", died=died)

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            try:
                self._begin_listening(undo)
            except OSError as error:
                raise HostError(f"cannot listen on {self.path}: {error.strerror or error}") from error
            undo.pop_all()
        return self

    def _begin_listening(self, undo: ExitStack) -> None:
        """Create the socket and start the thread; `undo` releases both."""
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        undo.callback(os.close, self._stop)
        self._selector = undo.enter_context(selectors.DefaultSelector())
        self._listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._listener.bind(str(self.path))
        undo.callback(self.path.unlink, missing_ok=True)
        if self._group is not None:
            os.chown(self.path, -1, self._group)
        self.path.chmod(0o600 if self._group is None else 0o660)
        self._listener.listen(_BACKLOG)
        self._listener.settimeout(0)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._stop, selectors.EVENT_READ)
        start(self._thread)

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Accept no more requests, end the streams, and wait up to `_AT_END` seconds for running verbs."""
        self._closing = True
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self.path.unlink(missing_ok=True)
        for channel in tuple(self._channels):
            channel.end()
        deadline = time.monotonic() + _AT_END
        for thread in list(self._calls):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        self._selector.close()
        os.close(self._stop)

    # The thread that reads requests.

    def _run(self) -> None:
        repeat(self._take_turn, f"control socket {self.path}", pause=_PAUSE)

    def _take_turn(self) -> bool:
        """Wait for connections and requests, and handle them; False once the server is closed."""
        for key, _ in self._selector.select(self._next_deadline()):
            if key.fileobj == self._stop:
                self._close_all()
                return False
            if key.fileobj is self._listener:
                self._accept()
            elif key.data in self._waiting:  # not closed meanwhile
                self._read(key.data)
        for late in [each for each in self._waiting if each.deadline <= time.monotonic()]:
            self._refuse(late, HostError(f"no whole request within {PATIENCE:g} s"))
        return True

    def _next_deadline(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, min(each.deadline for each in self._waiting) - time.monotonic())

    def _close_all(self) -> None:
        self._listener.close()
        for inbound in self._waiting:
            inbound.connection.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no descriptor is free: close the connection that has waited longest
            log.warning("cannot take a connection: %s", error.strerror)
            if self._waiting:
                self._refuse(self._waiting[0], HostError("too many connections", cure="try again"))
            else:
                time.sleep(_PAUSE)
            return
        with ExitStack() as failing:
            failing.callback(connection.close)
            connection.settimeout(0)
            inbound = Inbound(connection, time.monotonic() + PATIENCE)
            if not self._allowed(peer := Peer.of(connection)):
                log.warning("refused process %d of user %d", peer.pid, peer.uid)
                inbound.answer(_NOT_ALLOWED)
                return
            if len(self._waiting) >= MAX_CONNECTIONS:
                self._refuse(self._waiting[0], HostError("too many connections", cure="try again"))
            self._selector.register(connection, selectors.EVENT_READ, inbound)
            failing.pop_all()
        self._waiting.append(inbound)

    def _read(self, inbound: Inbound) -> None:
        try:
            line = inbound.read()
        except VscsihbaError as error:
            self._refuse(inbound, error)
        else:
            if inbound.ended:
                self._forget(inbound)
                inbound.connection.close()
            elif line is not None:
                self._forget(inbound)
                self._begin(inbound, line)

    def _begin(self, inbound: Inbound, line: bytes) -> None:
        """Carry out a request on a thread of its own."""
        self._calls = {thread for thread in self._calls if thread.is_alive()}
        if len(self._calls) >= MAX_CALLS:
            inbound.answer(wire.encode_error(HostError("too busy", cure="try again later")))
            return
        thread = threading.Thread(target=self._carry_out, args=(inbound, line), name="verb", daemon=True)
        self._calls.add(thread)  # before its start, which it may outrun
        try:
            start(thread)
        except OSError as error:
            self._calls.discard(thread)
            log.warning("cannot carry out a request: %s", error.strerror)
            inbound.answer(wire.encode_error(HostError("no thread can be started", cure="try again later")))

    def _refuse(self, inbound: Inbound, error: VscsihbaError) -> None:
        self._forget(inbound)
        inbound.answer(wire.encode_error(error))

    def _forget(self, inbound: Inbound) -> None:
        self._waiting.remove(inbound)
        self._selector.unregister(inbound.connection)

    # A thread of a request.

    def _carry_out(self, inbound: Inbound, line: bytes) -> None:
        """Carry out a request and send its result; an unexpected exception is logged and hangs up."""
        with inbound.outbound(PATIENCE) as send:
            try:
                request = wire.decode_request(line)
                result = self._call(request, lambda report: send(wire.encode({"progress": report})))
                answer = result.answer if isinstance(result, Stream) else result
                send(wire.encode({"result": answer}))
                if isinstance(result, Stream):
                    self._run_stream(result, inbound)
            except VscsihbaError as error:
                send(wire.encode_error(error))
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                send(wire.encode_error(HostError(f"{where}{error.strerror or error}")))

    def _run_stream(self, stream: Stream, inbound: Inbound) -> None:
        channel = Channel(inbound.connection)
        self._channels.add(channel)
        try:
            if self._closing:
                channel.end()
            stream.run(channel)
        finally:
            self._channels.discard(channel)

    def _call(self, request: wire.Request, progress: ProgressCallback) -> object:
        verb = self._verbs.get(request.verb)
        if verb is None:
            raise UsageError(f"unknown verb {request.verb!r}", cure=f"use {', '.join(sorted(self._verbs))}")
        signature = inspect.signature(verb)
        arguments = dict(request.arguments)
        if "progress" in signature.parameters:
            arguments["progress"] = progress
        try:
            signature.bind(**arguments)
        except TypeError as error:
            taken = ", ".join(name for name in signature.parameters if name != "progress") or "none"
            raise UsageError(
                f"wrong arguments for {request.verb!r}: {error}", cure=f"it takes {taken}"
            ) from error
        return verb(**arguments)


_NOT_ALLOWED = wire.encode_error(HostError("permission denied", cure="be root, or in the group vscsihba"))
