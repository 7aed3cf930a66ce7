"""Passphrases: the sources of a secret, which is never an option or on a command line.

Those are seen by everybody who can list processes or read a document. A secret is in a
file, or in a credential that systemd hands to the service.
"""

import os
import stat
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.options import SecretPath

_MOST = 8192 << 10
"""Bytes of the largest key file that cryptsetup takes."""
_MEMORY_DEVICES = 1
"""MEM_MAJOR (include/uapi/linux/major.h): /dev/null and the like; other character devices are terminals."""


class PassphraseOptions(Handler.Options, kw_only=True):
    """The three sources of a secret, one of which has to be chosen."""

    passphrase_file: Annotated[
        SecretPath, Meta(description="File with the passphrase, without a final newline.")
    ] = ""
    key_file: Annotated[
        SecretPath, Meta(description="File with the key: every byte of it, as for cryptsetup --key-file.")
    ] = ""
    credential: Annotated[
        str, Meta(description="Name of the systemd credential that is the passphrase (LoadCredential=).")
    ] = ""

    def __post_init__(self) -> None:
        """Require exactly one source."""
        if sum(map(bool, (self.passphrase_file, self.key_file, self.credential))) != 1:
            raise ValueError('say one of "passphrase_file", "key_file" and "credential"')
        if "/" in self.credential:
            raise ValueError("a credential has a name and no path")

    def check_secret(self) -> None:
        """Check that the secret is there; a source that can be read once only (a pipe) is not read.

        Raises:
            UsageError: There is no such file, or nothing in it.
            HostError: systemd gave no credentials to this process.
        """
        if self.is_readable_again():
            self.read_secret()

    def read_secret(self) -> bytes:
        """Read the secret.

        Raises:
            UsageError: There is no such file, or nothing in it, or too much.
            HostError: systemd gave no credentials to this process.
        """
        path = self._path()
        try:
            with path.open("rb") as file:
                secret = file.read(_MOST + 1)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", cure=self._cure()) from error
        if len(secret) > _MOST:
            raise UsageError(f"{path} has more than the {_MOST} bytes that a key file may have")
        if not self.key_file:
            secret = secret.removesuffix(b"\n")
        if not secret:
            raise UsageError(f"{path} is empty", cure="write the secret into it")
        return secret

    def _cure(self) -> str:
        if self.credential:
            return f"name it in the unit: LoadCredential={self.credential}:PATH"
        return "name a file that can be read"

    def is_readable_again(self) -> bool:
        """Return whether the secret can be read more than once: not from a pipe or a terminal."""
        try:
            status = self._path().stat()
        except OSError:
            return True
        is_stream = stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
        return not is_stream and not (
            stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) != _MEMORY_DEVICES
        )

    def _path(self) -> Path:
        return Path(self.key_file or self.passphrase_file or self._credential())

    def _credential(self) -> str:
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            raise HostError(
                f"there is no credential {self.credential!r}: this process is not a systemd service",
                cure="start it as one, with LoadCredential=",
            )
        return f"{directory}/{self.credential}"


class Secret:
    """The secret of one open container: read when it is needed, once if it can be read once only.

    Args:
        options: Say where it is.
    """

    def __init__(self, options: PassphraseOptions) -> None:
        self._options = options
        self._kept: bytes | None = None

    def get(self) -> bytes:
        """Return the secret.

        Raises:
            UsageError, HostError: As `PassphraseOptions.read_secret`.
        """
        if self._kept is not None:
            return self._kept
        secret = self._options.read_secret()
        if not self._options.is_readable_again():
            self._kept = secret
        return secret

    def forget(self) -> None:
        """Forget the secret."""
        self._kept = None
