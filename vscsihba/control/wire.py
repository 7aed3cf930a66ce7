"""The lines on a control socket: requests, progress, results and errors. Knows nothing of sockets.

Both sides validate the lines that they receive.
"""

import json
from typing import Any, Final

import msgspec

from vscsihba.errors import HostError, UsageError, VscsihbaError

MAX_REQUEST: Final = 1 << 20
"""Bytes of the longest request, including its newline."""

MAX_ANSWER: Final = 64 << 20
"""Bytes of the longest answer that a client accepts; a document of 16384 LUNs is far shorter."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request.

    Attributes:
        verb: The operation.
        arguments: By name; any JSON values.
    """

    verb: str
    arguments: dict[str, Any] = {}


class Failure(msgspec.Struct, frozen=True):
    """An error on the wire: the parts of a `VscsihbaError`."""

    message: str
    cure: str | None = None
    exit_code: int = 1

    def to_error(self) -> VscsihbaError:
        """Return the error as an exception."""
        kind = UsageError if self.exit_code == UsageError.exit_code else HostError
        return kind(self.message, cure=self.cure)


class Answer(msgspec.Struct, frozen=True):
    """One line of an answer: exactly one of the fields is set."""

    progress: Any = msgspec.UNSET
    result: Any = msgspec.UNSET
    error: Failure | msgspec.UnsetType = msgspec.UNSET


def encode(message: dict[str, object]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def encode_error(error: VscsihbaError) -> bytes:
    """Return an error as a line."""
    parts = {"message": error.message, "cure": error.cure, "exit_code": error.exit_code}
    return encode({"error": parts})


def decode_request(line: bytes) -> Request:
    """Parse a request.

    Raises:
        UsageError: The line is not a valid request.
    """
    try:
        return msgspec.json.decode(line, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"not a request: {error}", cure='send one line: {"verb": "status", "arguments": {}}'
        ) from error


def decode_answer(line: bytes) -> Answer:
    """Parse one line of an answer.

    Raises:
        HostError: The line is not a valid answer.
    """
    try:
        return msgspec.json.decode(line, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HostError(f"not an answer: {error}", cure="are both programs of one version?") from error
