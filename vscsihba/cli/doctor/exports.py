"""Checks of the prerequisites of exports: the kernel's iSCSI target, their addresses, and their secrets."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from vscsihba.cli.doctor.finding import Finding, finding_of
from vscsihba.config.model import Document
from vscsihba.configfs import probe
from vscsihba.daemon.export_checks import check_exports
from vscsihba.units import counted

_MODULE: Final = "iscsi_target_mod"
_NOTHING: Final = Document()


def check_asked_exports(document: Document, which: str) -> Iterator[Finding]:
    """Yield findings about the exports of a document; nothing for a document without exports.

    Args:
        document: The running or the saved configuration.
        which: Its name in the findings.
    """
    if document.exports:
        yield finding_of(f"module {_MODULE}", partial(probe.look_for_module, _MODULE))
        yield finding_of(f"{which} exports", partial(_exports, document))


def _exports(document: Document) -> str:
    check_exports(document, _NOTHING)
    return f"{counted(len(document.exports), 'export')}, whose addresses and secrets are in order"
