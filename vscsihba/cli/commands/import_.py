"""``vscsihba import``: makes a document of the file that targetcli has saved, for LIO and tcmu-runner.

The conversion is in `vscsihba.config.saveconfig`; this module reads and writes files. It applies nothing.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.config.dump import dump
from vscsihba.config.load import read
from vscsihba.config.saveconfig import Conversion, convert
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.shared.durable import replace_file

_EXAMPLES: Final = """\
  vscsihba import /etc/rtslib-fb-target/saveconfig.json > disks.json
  vscsihba import saveconfig.json --secrets /etc/vscsihba/chap > disks.json    also keep CHAP secrets
  vscsihba plan disks.json                                                     show the changes

The document is printed; lines on standard error say which entries have no counterpart, and which
differ. Disks keep their serial numbers and world wide names. Nothing is applied. Before you apply the
document, stop the targets of LIO: two programs must not write to one file (docs/import.md).
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of(
        "import",
        usage="FILE [--secrets DIR] [--json]",
        examples=_EXAMPLES,
        json_help="print the document and the notes as one JSON object",
    )
    made.add_argument("file", metavar="FILE", help='saveconfig.json; "-" reads it from standard input')
    made.add_argument(
        "--secrets",
        metavar="DIR",
        help="write CHAP secrets into files in this folder, which only root can read",
    )
    return made


def run(arguments: Sequence[str]) -> int:
    """Convert the file."""
    options = parser().parse_args(arguments)
    folder = Path(options.secrets or "secrets").absolute()
    converted = convert(_content(options.file), str(folder))
    if converted.secrets and options.secrets is None:
        raise UsageError(
            f"{options.file} has CHAP secrets, which are never in a document",
            cure="use --secrets /etc/vscsihba/chap, or another folder, to keep them in files",
        )
    document = dump(read(converted.document, Path.cwd()))
    _write(folder, converted.secrets)
    notes = [*converted.notes, *_sizes(converted)]
    if options.json:
        print_json({"document": json.loads(document), "notes": notes})
        return 0
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(document, end="")
    return 0


def _content(file: str) -> Any:
    """Return the decoded file.

    Raises:
        UsageError: It cannot be read, or is not JSON.
    """
    try:
        return json.loads(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(
            f"{file} is not JSON: {error}", cure="use a file that targetcli has saved"
        ) from error


def _write(folder: Path, secrets: Mapping[str, str]) -> None:
    """Write secrets into a folder that only its owner can read.

    Raises:
        HostError: They cannot be written.
    """
    try:
        if secrets:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, secret in secrets.items():
            replace_file(folder / name, secret.encode())
    except OSError as error:
        raise HostError(f"{error.filename or folder}: {error.strerror}") from error


def _sizes(converted: Conversion) -> Iterator[str]:
    """Yield a note for each file whose size is not the one that LIO shows."""
    for name, size in converted.sizes.items():
        path = Path(name)
        if path.is_file() and (found := path.stat().st_size) != size:
            yield f"{name}: the file, and so the disk, has {found} bytes; LIO shows {size}"
