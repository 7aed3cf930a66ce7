"""The lines on a control socket: requests, progress, results and errors, and nothing of sockets.

Both sides are checked: what comes from the other end is data from outside.
"""

import json
from typing import Any, Final

import msgspec

from vscsihba.errors import HostError, UsageError, VscsihbaError

MAX_REQUEST: Final = 1 << 20
"""Bytes of the longest request, its newline included."""

MAX_ANSWER: Final = 64 << 20
"""Bytes of the longest answer that a client takes: a document of 16384 LUNs is far below."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for.

    Attributes:
        verb: The operation.
        arguments: By name; any JSON.
    """

    verb: str
    arguments: dict[str, Any] = {}


class Failure(msgspec.Struct, frozen=True):
    """An error as it travels: the parts of a `VscsihbaError`."""

    message: str
    cure: str | None = None
    exit_code: int = 1

    def to_error(self) -> VscsihbaError:
        """Return the error that the other side meant."""
        kind = UsageError if self.exit_code == UsageError.exit_code else HostError
        return kind(self.message, cure=self.cure)


class Answer(msgspec.Struct, frozen=True):
    """One line of an answer: exactly one of these is there."""

    progress: Any = msgspec.UNSET
    result: Any = msgspec.UNSET
    error: Failure | msgspec.UnsetType = msgspec.UNSET


def encode(message: dict[str, object]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def encode_error(error: VscsihbaError) -> bytes:
    """Return the line that tells the other side of an error."""
    parts = {"message": error.message, "cure": error.cure, "exit_code": error.exit_code}
    return encode({"error": parts})


def decode_request(line: bytes) -> Request:
    """Read a request.

    Raises:
        UsageError: It is none.
    """
    try:
        return msgspec.json.decode(line, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"not a request: {error}", cure='send one line: {"verb": "status", "arguments": {}}'
        ) from error


def decode_answer(line: bytes) -> Answer:
    """Read one line of an answer.

    Raises:
        HostError: It is none.
    """
    try:
        return msgspec.json.decode(line, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HostError(f"not an answer: {error}", cure="are both programs of one version?") from error
