"""What a logical unit keeps for its next life, as bytes that somebody else stores.

A small JSON document, so that a person can read it too. Does not know where it is kept.
"""

import json

from vscsihba.errors import UsageError
from vscsihba.scsi.mode_pages import PAGES, ModePages

Information = dict[int, bytes]
"""Identifying information by INFORMATION TYPE."""


def encode_state(mode_pages: ModePages, information: Information) -> bytes:
    """Return the state as bytes."""
    pages = {
        f"{page:02x}/{subpage:02x}": values.hex() for (page, subpage), values in mode_pages.saved.items()
    }
    named = {str(kind): value.hex() for kind, value in information.items()}
    return json.dumps({"mode_pages": pages, "identifying_information": named}, indent=1).encode()


def decode_state(state: bytes, mode_pages: ModePages) -> Information:
    """Put the mode pages of a saved state in force; return its identifying information.

    Only what can be changed is taken over, so a state of an older or newer program does no harm.

    Raises:
        UsageError: These bytes are no saved state.
    """
    try:
        document = json.loads(state)
        saved = {key: bytes.fromhex(values) for key, values in document["mode_pages"].items()}
        named = document.get("identifying_information", {})
        information = {int(kind): bytes.fromhex(value) for kind, value in named.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"not the saved state of a logical unit: {error}") from error
    for (page, subpage), values in mode_pages.saved.items():
        kept = saved.get(f"{page:02x}/{subpage:02x}", values)
        if len(kept) == len(values):
            mode_pages.saved[page, subpage] = _merge(values, kept, PAGES[page, subpage].changeable)
    mode_pages.reset()
    return information


def _merge(values: bytes, kept: bytes, mask: bytes) -> bytes:
    return bytes(old & ~bits & 0xFF | new & bits for old, new, bits in zip(values, kept, mask, strict=True))
