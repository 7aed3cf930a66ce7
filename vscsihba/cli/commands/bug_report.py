"""``vscsihba bug-report``: writes an archive with everything that a report of a fault needs."""

import io
import os
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.commands.doctor import GROUPS
from vscsihba.cli.output import print_json, print_table
from vscsihba.cli.program import Parser
from vscsihba.cli.report.parts import Part, parts
from vscsihba.errors import HostError

_EXAMPLES: Final = """\
  vscsihba bug-report                          write vscsihba-bug-report-TIME.tar.gz into this folder
  vscsihba bug-report --output /tmp/r.tar.gz   write it there

Nothing is sent, and nothing on the machine is changed. Secrets are taken out: values of keys such as
password, key_file or user, and users and queries in URLs. Names of files, disks and computers stay; read
the files before you pass them on. Only you can read the archive. Run it as root, for the logs and the
state of the service.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of("bug-report", usage="[--output FILE] [--json]", examples=_EXAMPLES)
    made.add_argument("--output", metavar="FILE", help="the archive, which must not exist yet")
    return made


def run(arguments: Sequence[str]) -> int:
    """Write the archive and list its content."""
    options = parser().parse_args(arguments)
    stamp = time.strftime("%Y%m%dT%H%M%S")
    path = Path(options.output or f"vscsihba-bug-report-{stamp}.tar.gz")
    written = list(parts(GROUPS))
    _write(path, written)
    if options.json:
        content = [
            {"name": each.name, "bytes": len(each.text.encode()), "summary": each.summary} for each in written
        ]
        print_json({"file": str(path), "content": content})
        return 0
    print_table(
        [[each.name, f"{len(each.text.encode())}", each.summary] for each in written],
        ["file", "bytes", "content"],
    )
    print(f"\nwrote {path}; nothing was sent")
    print(
        "Secrets were taken out; names of files, disks and computers were not. Read it before you pass it on."
    )
    return 0


def _write(path: Path, written: Sequence[Part]) -> None:
    """Write the archive, which nobody else may read.

    Raises:
        HostError: It exists, or cannot be written.
    """
    folder = path.name.removesuffix(".tar.gz")
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for part in written:
                content = part.text.encode(errors="replace")
                member = tarfile.TarInfo(f"{folder}/{part.name}")
                member.size, member.mtime, member.mode = len(content), int(time.time()), 0o600
                archive.addfile(member, io.BytesIO(content))
    except FileExistsError as error:
        raise HostError(f"{path} exists", cure="use --output with another name") from error
    except OSError as error:
        raise HostError(
            f"{path}: {error.strerror}", cure="use --output with a folder that has room"
        ) from error
