"""Arguments that plan and apply share: the document, and the scope of removal."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Final

from vscsihba.config.load import load, parse
from vscsihba.config.model import Document

_PRUNE: Final = (
    "what to remove if FILE does not have it: LUNs of the HBAs in FILE (named, the default), "
    "also all other HBAs (all), or nothing (none)"
)


def add_document_args(parser: ArgumentParser) -> None:
    """Add the arguments FILE and ``--prune``."""
    parser.add_argument(
        "file", metavar="FILE", help='configuration document; "-" reads it from standard input'
    )
    parser.add_argument("--prune", choices=("named", "all", "none"), default="named", help=_PRUNE)


def read_document(file: str) -> Document:
    """Return the document in a file; relative paths in it begin where the file is.

    Args:
        file: Its path, or "-" for standard input.

    Raises:
        UsageError: It cannot be read, or is wrong at the place that the message names.
    """
    if file == "-":
        return parse(sys.stdin.buffer.read(), Path.cwd())
    return load(Path(file))
