"""Options of the http handler, and the checks of the files that they name."""

from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from vscsihba.errors import UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.options import BlockSize, FilePath, SecretPath, Size
from vscsihba.handlers.shared.private_file import check_private, mode_of

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_PROXIES: Final = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_MOST_SECRET: Final = 4096
"""Bytes of a user name and a password together."""


class HttpOptions(Handler.Options, kw_only=True):
    """Options of the http handler."""

    url: Annotated[str, Meta(description="The file: http:// or https://.", min_length=1)]
    block_size: Annotated[BlockSize, Meta(description="Logical block in bytes.")] = 512
    timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="Seconds after which a read fails if the server does not deliver.",
        ),
    ] = 25.0
    connections: Annotated[
        int, Meta(ge=1, le=256, description="Requests to the server at the same time, at most.")
    ] = 8
    read_ahead: Annotated[
        Size, Meta(description="Memory for data that sequential reads will ask for; 0: none is fetched.")
    ] = 8 << 20
    format: Annotated[
        Literal["raw"] | None,
        Meta(
            description="Serve the bytes unchanged, even if they look like an image of another format "
            "(qcow2, vmdk, ...), which is refused otherwise."
        ),
    ] = None
    proxy: Annotated[
        str | None,
        Meta(
            description='URL of the proxy, or "none"; default: that of the environment '
            "(https_proxy, http_proxy, no_proxy, ...)."
        ),
    ] = None
    ca_file: Annotated[
        FilePath, Meta(description="CA certificates (PEM) that the server must be certified by.")
    ] = ""
    client_certificate: Annotated[FilePath, Meta(description="Certificate (PEM) to show to the server.")] = ""
    client_key: Annotated[SecretPath, Meta(description="Key (PEM) of the client certificate.")] = ""
    credentials_file: Annotated[
        SecretPath, Meta(description="File with user:password for the server, in one line.")
    ] = ""

    def __post_init__(self) -> None:
        """Refuse URLs that cannot be meant, and options that contradict each other."""
        check_url(self.url)
        if bool(self.client_certificate) != bool(self.client_key):
            raise ValueError('"client_certificate" and "client_key" go together')
        parts = urlsplit(self.url)
        if (self.ca_file or self.client_key) and parts.scheme != "https":
            raise ValueError("certificates need a URL that begins with https://")
        if self.credentials_file and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise ValueError("a password needs https://, or everybody on the way could read it")
        if self.proxy not in (None, "none"):
            _check_proxy(str(self.proxy))

    def check_files(self) -> None:
        """Check the files with certificates and secrets.

        Raises:
            UsageError: One is missing, or other users can read a secret.
        """
        for path in filter(None, (self.ca_file, self.client_certificate)):
            mode_of(path)
        for path in filter(None, (self.client_key, self.credentials_file)):
            check_private(path)
        self.credentials()

    def credentials(self) -> str:
        """Return ``user:password``, empty if the server asks for none.

        Raises:
            UsageError: The file has something else.
        """
        if not self.credentials_file:
            return ""
        try:
            with Path(self.credentials_file).open("rb") as file:
                text = file.read(_MOST_SECRET + 1).decode().removesuffix("\n")
        except OSError as error:
            raise UsageError(f"{self.credentials_file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{self.credentials_file} is not valid UTF-8") from error
        if ":" not in text or not text.isprintable() or len(text) > _MOST_SECRET:
            raise UsageError(f"{self.credentials_file} is not one line with user:password")
        return text


def check_url(url: str) -> None:
    """Check that a URL names a file of an HTTP server, and no secret.

    Raises:
        ValueError: It does not.
    """
    if any(letter <= " " or letter == "\x7f" for letter in url):
        raise ValueError("the URL has a space or a control character: write it as %20, ...")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        hint = "; on a command line, write http:http://..." if url.startswith("//") else ""
        raise ValueError(f"the URL must begin with http:// or https://{hint}")
    if not parts.hostname:
        raise ValueError("the URL names no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError('the URL must not have a user or password: use "credentials_file"')
    if parts.fragment:
        raise ValueError("the URL must not have a fragment (#...)")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError("the port in the URL is not a number from 0 to 65535") from error


def _check_proxy(proxy: str) -> None:
    parts = urlsplit(proxy)
    if parts.scheme not in _PROXIES or not parts.hostname:
        raise ValueError('"proxy" must be "none" or a URL such as http://proxy.example:3128')
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            '"proxy" must not have a user or password: set them in the environment (https_proxy)'
        )
