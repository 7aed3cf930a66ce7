"""The address of an export: its URI, and the keys of an encrypted connection.

Knows how libnbd is told of them; connects nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from vscsihba.errors import UsageError
from vscsihba.handlers.shared.optional import need
from vscsihba.handlers.shared.private_file import check_private

_SCHEMES: Final = ("nbd", "nbds", "nbd+unix", "nbds+unix")
_CERTIFICATES: Final = ("ca-cert.pem", "client-cert.pem", "client-key.pem")


def libnbd() -> ModuleType:
    """Import the binding of libnbd.

    Raises:
        HostError: It is not installed.
    """
    return need("nbd", package="libnbd", debian="python3-libnbd", extra=None, user="handler nbd")


@dataclass(frozen=True, slots=True)
class Address:
    """An export of a server.

    Attributes:
        uri: ``nbd://HOST[:PORT]/EXPORT`` or ``nbd+unix:///EXPORT?socket=PATH``; ``nbds`` in place of ``nbd``:
            the connection is encrypted.
        tls_certificates: Folder with ca-cert.pem, and client-cert.pem and client-key.pem if the server wants
            them.
        tls_psk_file: File with a pre-shared key, as psktool(1) makes it; empty if there is none.
        tls_username: Name of the key in it; empty for the name of the process's user.
    """

    uri: str
    tls_certificates: str = ""
    tls_psk_file: str = ""
    tls_username: str = ""

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.uri).scheme.startswith("nbds")

    @property
    def export(self) -> str:
        """The name of the export."""
        return unquote(urlsplit(self.uri).path.removeprefix("/"))

    @property
    def socket(self) -> str:
        """The path of the socket, empty for an address in the network."""
        parts = urlsplit(self.uri)
        return dict(parse_qsl(parts.query)).get("socket", "") if parts.scheme.endswith("+unix") else ""

    @property
    def name(self) -> str:
        """The URI without the name of a user, for messages and for the identity of the disk."""
        scheme, separator, rest = self.uri.partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"

    def check(self) -> None:
        """Check the URI, and that nobody else can read the keys.

        Raises:
            UsageError: It cannot be meant, or a file is missing or open to others.
        """
        self._check_uri()
        if not self.encrypted and (self.tls_certificates or self.tls_psk_file):
            raise UsageError(f"{self.name} is not encrypted", cure='begin it with "nbds", or give no keys')
        if self.encrypted and not (self.tls_certificates or self.tls_psk_file):
            # libnbd 1.14 takes any certificate then.
            raise UsageError(
                f"{self.name}: nothing would identify the server",
                cure='name a folder with the ca-cert.pem of its authority in "tls_certificates", or a '
                '"tls_psk_file"',
            )
        if self.tls_psk_file:
            check_private(self.tls_psk_file)
        if self.tls_certificates:
            folder = Path(self.tls_certificates)
            if not (folder / _CERTIFICATES[0]).is_file():
                raise UsageError(
                    f"{folder / _CERTIFICATES[0]}: no such file",
                    cure="put the certificate of the server's authority there",
                )
            if (folder / _CERTIFICATES[2]).exists():
                check_private(folder / _CERTIFICATES[2])

    def _check_uri(self) -> None:
        try:
            parts = urlsplit(self.uri)
            port, query = parts.port, dict(parse_qsl(parts.query, keep_blank_values=True))
        except ValueError as error:
            raise UsageError(
                f"{self.uri!r} is not a URI: {error}", cure="write nbd://HOST:PORT/EXPORT"
            ) from error
        if parts.scheme not in _SCHEMES:
            raise UsageError(
                f"{self.uri!r} is not the URI of an NBD export",
                cure="on a command line, write nbd:nbd://HOST/EXPORT"
                if self.uri.startswith("//")
                else "write nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH",
            )
        unix = parts.scheme.endswith("+unix")
        if unknown := set(query) - ({"socket"} if unix else set()):
            raise UsageError(
                f"{self.name}: {min(unknown)!r} is not part of such a URI",
                cure="give TLS settings as options",
            )
        if parts.password is not None:
            raise UsageError("a URI must not have a password", cure="use the option tls_psk_file")
        if unix and (not query.get("socket") or parts.hostname or port):
            raise UsageError(f"{self.name} names no socket", cure="write nbd+unix:///EXPORT?socket=PATH")
        if unix and not query["socket"].startswith("/"):
            raise UsageError(
                f"{self.name}: the socket {query['socket']!r} is a relative path", cure="make it absolute"
            )
        if not unix and not parts.hostname:
            raise UsageError(f"{self.name} names no host", cure="write nbd://HOST/EXPORT")

    def begin(self, handle: Any) -> None:
        """Begin to connect a handle of libnbd.

        Raises:
            nbd.Error: Connecting has failed at once.
        """
        if self.encrypted:
            handle.set_tls_verify_peer(True)
            if self.tls_certificates:
                handle.set_tls_certificates(self.tls_certificates)
            if self.tls_psk_file:
                handle.set_tls_psk_file(self.tls_psk_file)
            if self.tls_username:
                handle.set_tls_username(self.tls_username)
        handle.aio_connect_uri(self.uri)
