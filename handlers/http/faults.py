"""Failures of a request to an HTTP server, as errors of the medium."""

import errno

from vscsihba.errors import MediumError


class RefusedError(OSError):
    """The server, or its response, cannot be used (errno EIO): the same request would fail again.

    Args:
        message: The fault of the server or the response.
        cure: The remedy.
    """

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(errno.EIO, message)
        self.cure = cure


class ChangedError(MediumError):
    """The file of the server is another version than that of the disk.

    Args:
        offset: The first byte that was asked for.
        message: The difference.
    """


class AwayError(OSError):
    """The server does not deliver now (errno ETIMEDOUT): it may do so later.

    Args:
        message: The last reason.
        cure: The remedy.
    """

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(errno.ETIMEDOUT, message)
        self.cure = cure
