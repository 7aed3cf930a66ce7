"""pycurl, imported when a disk needs it.

libcurl does HTTP here since its transfers need no thread each and have limits that hold in every phase:
name resolution, handshake, header, body.
"""

from typing import Any

from vscsihba.handlers.shared.optional import need


def pycurl() -> Any:
    """Return the module `pycurl`.

    Raises:
        HostError: It is not installed.
    """
    return need("pycurl", package="pycurl", debian="python3-pycurl", extra="http", user="the handler http")
