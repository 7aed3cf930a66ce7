"""The client of a control socket: one request, its progress, one result."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from vscsihba.control import wire
from vscsihba.errors import HostError

_CROWDED = 10.0
"""Seconds to wait for a free place in the server's backlog."""


class NotListeningError(HostError):
    """No process listens on a control socket."""


class NoAnswerError(HostError):
    """A request was sent and not answered: it may have been carried out, or not."""


def call(
    path: Path,
    verb: str,
    arguments: Mapping[str, object] | None = None,
    *,
    timeout: float | None,
    progress: Callable[[object], None] | None = None,
) -> object:
    """Send a request to the process behind a control socket and return its result.

    Args:
        path: The socket.
        verb: The operation.
        arguments: By name; any JSON value.
        timeout: Seconds without a line from the server until the call fails; None waits for ever. The
            request may be carried out all the same.
        progress: Called with each report of progress.

    Returns:
        The result: a JSON value.

    Raises:
        NotListeningError: No process listens.
        NoAnswerError: The request may have been carried out, or not.
        UsageError, HostError: The server's error, or it does not answer.
    """
    with (
        ask(path, verb, arguments or {}, timeout=timeout) as connection,
        errors_of(connection, path, verb, timeout=timeout),
        connection.makefile("rb") as stream,
    ):
        while line := stream.readline(wire.MAX_ANSWER):
            answer = wire.decode_answer(line)
            if answer.error is not msgspec.UNSET:
                raise answer.error.to_error()
            if answer.result is not msgspec.UNSET:
                return answer.result
            if progress is not None:
                progress(answer.progress)
    raise NoAnswerError(f"{path}: ended without an answer to {verb!r}", cure="its log says why")


def ask(path: Path, verb: str, arguments: Mapping[str, object], *, timeout: float | None) -> socket.socket:
    """Send a request, and return the connection, on which the answer comes.

    Args:
        path: The control socket.
        verb: The operation.
        arguments: By name.
        timeout: Seconds that each later wait on the connection may take; None: no limit.

    Raises:
        NotListeningError: No process listens.
        NoAnswerError: The request may have been received, or not.
        HostError: The socket cannot be used.
    """
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:  # no descriptor is free
        raise HostError(f"{path}: cannot ask: {error.strerror}", cure="try again") from error
    with errors_of(connection, path, verb, timeout=timeout):
        connection.settimeout(timeout)
        _connect(connection, path)
        _send(connection, wire.encode({"verb": verb, "arguments": dict(arguments)}))
    return connection


@contextmanager
def errors_of(connection: socket.socket, path: Path, verb: str, *, timeout: float | None) -> Iterator[None]:
    """Close a connection if the context ends with an error; an error of the system is a `NoAnswerError`."""
    with ExitStack() as failing:
        failing.callback(connection.close)
        try:
            yield
        except TimeoutError as error:
            raise NoAnswerError(f"{path}: no answer to {verb!r} within {timeout:g} s") from error
        except OSError as error:
            raise NoAnswerError(f"{path}: {error.strerror or error}") from error
        failing.pop_all()


def _connect(connection: socket.socket, path: Path) -> None:
    """Connect; while the server's backlog is full (EAGAIN), retry for `_CROWDED` seconds."""
    deadline = time.monotonic() + _CROWDED
    while not _try_to_connect(connection, path):
        if time.monotonic() > deadline:
            raise HostError(f"{path}: too many connections", cure="try again")
        time.sleep(0.05)


def _try_to_connect(connection: socket.socket, path: Path) -> bool:
    try:
        connection.connect(str(path))
        return True
    except BlockingIOError:
        return False
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise NotListeningError(f"no program listens on {path}") from error
    except PermissionError as error:
        raise HostError(f"{path}: permission denied", cure="be root, or in the group vscsihba") from error
    except OSError as error:
        raise HostError(f"{path}: {error.strerror or error}") from error


def _send(connection: socket.socket, line: bytes) -> None:
    """Send the request; a server that has refused it has closed its end, but its answer can be read."""
    try:
        connection.sendall(line)
    except (BrokenPipeError, ConnectionResetError):
        return
