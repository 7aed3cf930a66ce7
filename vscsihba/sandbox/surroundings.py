"""The surroundings of a command in the sandbox: its environment, its writable folders, its disks.

Reads documents and this machine's environment; starts no program.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from vscsihba.config.dump import dump
from vscsihba.config.load import load, read
from vscsihba.config.model import VERSION, Document
from vscsihba.errors import UsageError
from vscsihba.handlers.stack import Document as Stack
from vscsihba.handlers.stack_text import parse
from vscsihba.sandbox.plan import FOLDER, HIDDEN, LEAST_MEMORY, MIB, SCRATCH, Preparation
from vscsihba.units import parse_size

INSIDE: Final = "VSCSIHBA_SANDBOX"
"""Variable that is set inside the sandbox."""
_LEFT_OUT: Final = frozenset(
    {
        *("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "LD_PRELOAD", "SSH_AUTH_SOCK", "TMPDIR", "WAYLAND_DISPLAY"),
        *("XAUTHORITY", "XDG_RUNTIME_DIR"),
    }
)
"""Variables that name sockets and folders outside of the sandbox."""
_ADMIN_PATHS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_DISKS: Final = "disks.json"
_SOCKET: Final = "/run/vscsihba/control.sock"
_HBA_IDS: Final = range(256)


def environment(*, scratch: bool) -> dict[str, str]:
    """Return the environment of a command: the caller's, with root's programs and vscsihba's on the path."""
    kept = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
    paths = kept.get("PATH", os.defpath).split(":")
    ours = str(Path(sys.executable).parent)
    paths += [path for path in (*_ADMIN_PATHS, ours) if path not in paths]
    added = {"PATH": ":".join(paths), "USER": "root", "LOGNAME": "root", INSIDE: "1"}
    return {**kept, **added, **({"VSCSIHBA_SCRATCH": SCRATCH} if scratch else {})}


def memory_size(text: str) -> int:
    """Parse the size of the sandbox's memory and return it in bytes.

    Raises:
        UsageError: The text is not a size, or the size is too small for Linux.
    """
    size = parse_size(text)
    if size < LEAST_MEMORY:
        raise UsageError(
            f"--memory {size // MIB}MiB is too little for Linux",
            cure=f"give at least {LEAST_MEMORY // MIB}MiB",
        )
    return size


def writable_folder(name: str, what: str = "--writable") -> Path:
    """Return the absolute path of a folder into which the sandbox may write.

    Args:
        name: Name of the folder.
        what: The first words of an error message, before the name.

    Raises:
        UsageError: It is not a folder, or the sandbox does not share it with this machine.
    """
    path = Path(name)
    if not path.is_dir():
        raise UsageError(f"{what} {name}: no such folder", cure="create it first")
    path = path.resolve()
    for hidden in HIDDEN:
        if path.is_relative_to(hidden):
            raise UsageError(
                f"{what} {name}: the sandbox has a {hidden} of its own", cure="use another folder"
            )
    if path == Path("/"):
        raise UsageError(f"{what} /: the root cannot be written through", cure="name the folders")
    if "," in str(path):
        raise UsageError(f"{what} {name}: a comma in the name", cure="use another folder")
    return path


def disk_service(file: str | None, stacks: Sequence[str]) -> tuple[list[Preparation], Mapping[str, str]]:
    """Return the programs that create disks before the command, and the document that they read.

    Args:
        file: Path of a document, if any.
        stacks: More disks, each as a path or a stack in one line.

    Raises:
        UsageError: The document or a stack is not valid.
        HostError: A handler's package is missing.
    """
    if file is None and not stacks:
        return [], {}
    document = _with_disks(load(Path(file)) if file is not None else Document(), stacks)
    program = [sys.executable, "-c", "import sys; from vscsihba.cli.main import main; sys.exit(main())"]
    return [
        Preparation("vscsihba daemon", [*program, "daemon"], ready=_SOCKET),
        Preparation("vscsihba apply", [*program, "apply", f"{FOLDER}/{_DISKS}"]),
    ], {_DISKS: dump(document)}


def _with_disks(document: Document, stacks: Sequence[str]) -> Document:
    """Return a document with more disks, all of them on one new HBA."""
    if not stacks:
        return document
    names = (f"disk{number}" for number in range(len(stacks) + len(document.backstores)))
    free = [name for name in names if name not in document.backstores]
    added: dict[str, Stack] = {
        name: _explicit(parse(stack)) for name, stack in zip(free, stacks, strict=False)
    }
    # Disks appear in the order of their HBAs: those of the document first, if there is an id above them.
    taken = {hba.id for hba in document.hbas}
    above = range(max(taken, default=-1) + 1, len(_HBA_IDS))
    hba = next((number for number in (*above, *_HBA_IDS) if number not in taken), None)
    if hba is None:
        raise UsageError("the document has all 256 HBAs", cure="leave --disk out")
    luns = [{"lun": lun, "backstore": name} for lun, name in enumerate(added)]
    more = read({"version": VERSION, "backstores": added, "hbas": [{"id": hba, "luns": luns}]}, Path.cwd())
    return Document(
        version=VERSION,
        backstores={**document.backstores, **more.backstores},
        hbas=(*document.hbas, *more.hbas),
    )


def _explicit(stack: Stack) -> Stack:
    return {"handler": "file", "path": stack} if isinstance(stack, str) else stack
