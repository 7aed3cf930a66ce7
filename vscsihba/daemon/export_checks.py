"""Checks of the exports of a document against this machine, before anything is changed.

They change nothing; to see whether an address is free, they bind a socket to it for a moment.
"""

import errno
import socket
from collections.abc import Callable, Collection

from vscsihba import configfs
from vscsihba.config.export import Export
from vscsihba.config.model import Document
from vscsihba.daemon.export_secrets import check_secrets
from vscsihba.errors import ConfigError, UsageError

_REASONS = {
    errno.EADDRNOTAVAIL: ("this machine does not have that address", "name an address of this machine"),
    errno.EADDRINUSE: ("another program listens there", "end that program, or choose another port"),
}


def check_exports(
    target: Document,
    running: Document,
    portals_in_use: Callable[[], Collection[str]] = configfs.portals_in_use,
) -> None:
    """Refuse exports that this machine cannot have, as far as that can be known beforehand.

    Args:
        target: All exports after the change.
        running: The running document; exports that stay as they are are not checked.
        portals_in_use: Returns the portals on which the kernel's targets listen already.

    Raises:
        ConfigError: An address is not free, or a secret cannot be used.
    """
    changed = [export for export in target.exports if running.export(export.name) != export]
    known = portals_in_use() if changed else ()
    for export in changed:
        _check_secrets(export)
        for portal in export.portals:
            if portal not in known:
                _check_portal(portal, export.name)


def _check_secrets(export: Export) -> None:
    for initiator in export.initiators:
        try:
            check_secrets(initiator)
        except UsageError as error:
            raise ConfigError(_place(export.name, initiator.name), error.message, cure=error.cure) from error


def _check_portal(portal: str, name: str) -> None:
    """Refuse an address that this machine lacks, which LIO would accept (IP_FREEBIND), or that is taken."""
    address, _, port = portal.rpartition(":")
    family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address.strip("[]"), int(port)))
    except OSError as error:
        why, cure = _REASONS.get(error.errno or 0, (error.strerror or str(error), "choose another address"))
        raise ConfigError(_place(name, portal), why, cure=cure) from error


def _place(export: str, part: str) -> str:
    return f"export {export}, {part}"
