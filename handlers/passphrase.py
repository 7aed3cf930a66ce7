"""Passphrases: where a secret comes from, which is never an option or a command line.

Those are seen by everybody who can list processes or read a document. A secret is in a
file, or in a credential that systemd hands to the service.
"""

import os
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.options import SecretPath

_MOST = 8192 << 10
"""Bytes of the largest key file that cryptsetup takes."""


class PassphraseOptions(Handler.Options, kw_only=True):
    """The three ways to a secret, one of which has to be chosen."""

    passphrase_file: Annotated[
        SecretPath, Meta(description="File with the passphrase; a newline at its end does not belong to it.")
    ] = ""
    key_file: Annotated[
        SecretPath, Meta(description="File whose every byte is the key, as cryptsetup --key-file.")
    ] = ""
    credential: Annotated[
        str, Meta(description="Name of the systemd credential that is the passphrase (LoadCredential=).")
    ] = ""

    def __post_init__(self) -> None:
        """Demand exactly one."""
        if sum(map(bool, (self.passphrase_file, self.key_file, self.credential))) != 1:
            raise ValueError('say one of "passphrase_file", "key_file" and "credential"')
        if "/" in self.credential:
            raise ValueError("a credential has a name and no path")

    def secret(self) -> bytes:
        """Return the secret.

        Raises:
            UsageError: There is no such file, or nothing in it.
            HostError: systemd gave no credentials to this process.
        """
        path = Path(self.key_file or self.passphrase_file or self._credential())
        try:
            with path.open("rb") as file:
                found = file.read(_MOST)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        if not self.key_file:
            found = found.removesuffix(b"\n")
        if not found:
            raise UsageError(f"{path} is empty")
        return found

    def _credential(self) -> str:
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            raise HostError(
                f"there is no credential {self.credential!r}: this is no systemd service",
                cure="start it as one, with LoadCredential=",
            )
        return f"{directory}/{self.credential}"
