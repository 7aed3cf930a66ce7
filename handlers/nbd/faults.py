"""Reasons why a server cannot be used, as one line with the place and the cure. Connects nothing."""

import errno
import os
from typing import Final
from urllib.parse import urlsplit

from vscsihba.errors import HostError
from vscsihba.handlers.nbd.address import Address

_DEFAULT_PORT: Final = 10809


def explain(address: Address, error: OSError) -> HostError:
    """Return the error for a server that could not be connected to.

    Args:
        address: The export.
        error: As `vscsihba.handlers.nbd.connection.Connection` raises it.
    """
    text = str(error.strerror).removeprefix(f"{address.name}: ")
    place = _place(address)
    if "getaddrinfo" in text:
        host = urlsplit(address.uri).hostname
        return HostError(
            f"{address.name}: the host {host} has no address ({text.rpartition(': ')[2]})",
            cure="correct it in the URI, or check the DNS of this machine",
        )
    if "gnutls" in text or "TLS" in text:
        return _explain_tls(address, text)
    match error.errno:
        case errno.ECONNREFUSED:
            reason, cure = f"nothing listens at {place}", f"start the server, or correct the {_part(address)}"
        case errno.ENOENT:
            reason, cure = f"there is no {place}", "start the server, or correct the path in the URI"
        case errno.EACCES | errno.EPERM:
            reason, cure = f"{text} ({place})", f"allow user {os.geteuid()} to use it"
        case errno.ETIMEDOUT | errno.EHOSTUNREACH | errno.ENETUNREACH:
            reason, cure = text, f"check that an NBD server listens at {place}, and the network"
        case errno.ECONNABORTED if address.encrypted:
            reason, cure = text, 'if it does not use TLS, begin the URI with "nbd"; else see its log'
        case errno.ENOTSUP if not address.encrypted:
            reason, cure = "the server does not serve it without TLS", 'begin the URI with "nbds"'
        case _:
            reason, cure = text, f"check that {place} is that of an NBD server, and see its log"
    return HostError(f"{address.name}: {reason}", cure=cure)


def _explain_tls(address: Address, text: str) -> HostError:
    if "certificate verification" in text:
        host = urlsplit(address.uri).hostname
        return HostError(
            f"{address.name}: the server's certificate is not for the host {host}, or not by an authority in "
            f"{address.tls_certificates}/ca-cert.pem",
            cure='correct the host in the URI, or "tls_certificates"',
        )
    keys = '"tls_psk_file" and "tls_username"' if address.tls_psk_file else '"tls_certificates"'
    return HostError(
        f"{address.name}: the TLS handshake failed: {text}", cure=f"check {keys}, and see the server's log"
    )


def _place(address: Address) -> str:
    """Return the place where a server has to listen."""
    if address.socket:
        return f"socket {address.socket}"
    parts = urlsplit(address.uri)
    return f"port {parts.port or _DEFAULT_PORT} of {parts.hostname}"


def _part(address: Address) -> str:
    return "path in the URI" if address.socket else "host and the port in the URI"
