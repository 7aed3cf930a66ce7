"""Secrets of exports: read from files that only their owner can read, when a target is made."""

from pathlib import Path
from typing import Final

from vscsihba.config.export import Initiator
from vscsihba.configfs import Chap
from vscsihba.errors import UsageError
from vscsihba.handlers.shared.private_file import check_private

_SHORTEST: Final = 12
"""Bytes: the 96 bits that RFC 7143, 12.1.3, asks for where IPsec is not used."""
_LONGEST: Final = 255
"""Bytes that the kernel keeps (iscsi_target_core.h, MAX_PASS_LEN), without the terminator."""


def chap(user: str | None, file: str | None) -> Chap | None:
    """Return a user with the secret in a file; None if there is no user.

    Raises:
        UsageError: The secret cannot be read, others can read it, or it has a wrong length.
    """
    return None if user is None or file is None else Chap(user, _secret(file))


def check_secrets(initiator: Initiator) -> None:
    """Refuse secrets that cannot be used, and one secret for both directions.

    Raises:
        UsageError: A secret cannot be used.
    """
    secrets = [_secret(path) for path in initiator.secret_files.values()]
    if len(secrets) == 2 and secrets[0] == secrets[1]:
        raise UsageError(
            "both secrets are the same, so that an attacker could reflect a challenge",
            cure="give the target a secret of its own in mutual_password_file",
        )


def _secret(file: str) -> str:
    check_private(file)
    try:
        line = Path(file).read_bytes().partition(b"\n")[0].removesuffix(b"\r")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", cure="name a file that can be read") from error
    if not _SHORTEST <= len(line) <= _LONGEST:
        raise UsageError(
            f"the secret in {file} has {len(line)} bytes",
            cure=f"use {_SHORTEST} to {_LONGEST}; Windows takes at most 16",
        )
    if not all(0x21 <= byte < 0x7F for byte in line) or line.startswith(b"NULL"):
        raise UsageError(
            f"the secret in {file} cannot be used",
            cure='use printable ASCII characters without a blank, and do not begin with "NULL"',
        )
    return line.decode("ascii")
