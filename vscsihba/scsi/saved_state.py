"""State of a logical unit that survives its engine, as a small JSON document.

Does not know where it is stored.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from vscsihba.errors import UsageError
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.mode_pages import PAGES, ModePages, PageKey
from vscsihba.scsi.readiness import Erasure

_FAILURES = {"format": Asc.FORMAT_COMMAND_FAILED, "sanitize": Asc.SANITIZE_COMMAND_FAILED}


@dataclass(slots=True)
class Kept:
    """Saved state besides the mode pages.

    Attributes:
        information: Identifying information by INFORMATION TYPE.
        erasure: A format or sanitize that ran, or had failed.
    """

    information: dict[int, bytes] = field(default_factory=dict)
    erasure: Erasure | None = None


def encode_state(saved: Mapping[PageKey, bytes], kept: Kept) -> bytes:
    """Return saved mode pages and the rest of the state as bytes."""
    pages = {f"{page:02x}/{subpage:02x}": values.hex() for (page, subpage), values in saved.items()}
    named = {str(kind): value.hex() for kind, value in kept.information.items()}
    document: dict[str, object] = {"mode_pages": pages, "identifying_information": named}
    if kept.erasure is not None:
        kind = next(kind for kind, failure in _FAILURES.items() if failure is kept.erasure.failure)
        document["erasure"] = {"kind": kind, "may_exit": kept.erasure.may_exit}
    return json.dumps(document, indent=1).encode()


def decode_state(state: bytes, mode_pages: ModePages) -> Kept:
    """Restore the mode pages of a saved state; return the rest of it.

    Only changeable bits are restored, so the state of an older or newer program does no harm. An
    erasure that was running has failed: the medium is partly erased (SBC-4 "Sanitize operations").

    Raises:
        UsageError: These bytes are not a saved state.
    """
    try:
        document = json.loads(state)
        saved = {key: bytes.fromhex(values) for key, values in document["mode_pages"].items()}
        named = document.get("identifying_information", {})
        information = {int(kind): bytes.fromhex(value) for kind, value in named.items()}
        erasure = _decode_erasure(document["erasure"]) if "erasure" in document else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"not the saved state of a logical unit: {error}") from error
    for (page, subpage), values in mode_pages.saved.items():
        kept = saved.get(f"{page:02x}/{subpage:02x}", values)
        if len(kept) == len(values):
            mode_pages.saved[page, subpage] = _merge(values, kept, PAGES[page, subpage].changeable)
    mode_pages.reset()
    return Kept(information, erasure)


def _decode_erasure(stored: dict[str, object]) -> Erasure:
    failure = _FAILURES[str(stored["kind"])]
    return Erasure(
        running=failure, failure=failure, total=0, failed=True, may_exit=stored["may_exit"] is True
    )


def _merge(values: bytes, kept: bytes, mask: bytes) -> bytes:
    return bytes(old & ~bits & 0xFF | new & bits for old, new, bits in zip(values, kept, mask, strict=True))
