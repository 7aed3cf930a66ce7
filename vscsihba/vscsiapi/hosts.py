"""Registering and detaching an HBA; the original did that by opening and closing its device.

Knows the arguments of an HBA; `vscsihba.vscsiapi.calls` knows its commands.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vscsihba.errors import UsageError, VscsihbaError
from vscsihba.hba import Lun, Port, VirtualHba
from vscsihba.vscsiapi.return_codes import note_error, returns_code
from vscsihba.vscsiapi.session import Session
from vscsihba.vscsiapi.task import Code, user_scsitap_task

Size = int | str

_DEVICE = re.compile(r"(?:/dev/)?vscsihba(\d{1,3})", re.ASCII)


def register_scsi_host(
    devname: str | bytes,
    *,
    sizes: Size | Sequence[Size] | Mapping[int, Size] = "64MiB",
    block_size: int = 512,
    wait: float | None = 0,
    on_ready: Callable[[int, str], None] | None = None,
    port: Port | None = None,
) -> user_scsitap_task | None:
    """Create an HBA whose commands come to your program.

    Args:
        devname: Name of the HBA, ``/dev/vscsihba0`` to ``/dev/vscsihba255``; there is no such file.
        sizes: Sizes of the LUNs, in bytes or as text (``"64MiB"``): one, a list from LUN 0 on, or by number.
        block_size: Logical block length in bytes.
        wait: Seconds that `get_scsi_task` waits for a command; None without a limit, as the original.
        on_ready: Called with number and disk (``/dev/sda``) of each LUN, by a thread of its own.
        port: Place of the HBA, if not the kernel; see `vscsihba.hba.VirtualHba`.

    Returns:
        A structure for the other calls, with `session` and a buffer; None if it failed (`last_error`).
    """
    try:
        if wait is not None and not wait >= 0:
            raise UsageError(f"a wait of {wait} seconds is not valid", cure="use 0 or more, or None")
        luns = _by_number(sizes)
        hba = VirtualHba(_hba_id(devname), port=port, on_ready=_ready(on_ready))
        session = Session(hba, wait)
        _add_luns(session, luns, block_size)
    except (VscsihbaError, TypeError) as error:
        note_error(str(error))
        return None
    task = user_scsitap_task(session=session.fd)
    with session.lock:
        session.buffers.give(task)
    return task


def _ready(tell: Callable[[int, str], None] | None) -> Callable[[Lun, Path], None] | None:
    return None if tell is None else lambda lun, disk: tell(lun.number, str(disk))


def _hba_id(devname: str | bytes) -> int:
    text = devname.decode(errors="replace") if isinstance(devname, bytes) else str(devname)
    if not (match := _DEVICE.fullmatch(text)):
        raise UsageError(f"{text!r} is not an HBA", cure='use "/dev/vscsihba0" to "/dev/vscsihba255"')
    return int(match[1])


def _by_number(sizes: Size | Sequence[Size] | Mapping[int, Size]) -> dict[int, Size]:
    if isinstance(sizes, int | str):
        sizes = [sizes]
    return dict(sizes) if isinstance(sizes, Mapping) else dict(enumerate(sizes))


def _add_luns(session: Session, sizes: dict[int, Size], block_size: int) -> None:
    """Add all LUNs; on an error, close the session and raise."""
    try:
        for lun, size in sizes.items():
            session.hba.add_lun(lun, size=size, block_size=block_size)
    except (VscsihbaError, TypeError):
        session.close()
        raise


@returns_code
def stop_scsi_host(task: user_scsitap_task, session: Session) -> int:  # noqa: ARG001
    """Begin to detach, and return at once: go on answering until `get_scsi_task` returns BAD_SESSION.

    So your program can answer the last commands of Linux (SYNCHRONIZE CACHE). A signal handler may call it.

    Returns:
        OK; BAD_TASK, BAD_SESSION.
    """
    session.hba.stop()
    return Code.OK


@returns_code
def unregister_scsi_host(task: user_scsitap_task, session: Session) -> int:  # noqa: ARG001
    """Detach, and return when that is done; open commands and those that still come are refused.

    The end of the program does the same.

    Returns:
        OK; BAD_TASK, BAD_SESSION, FAILED (the kernel refused a step).
    """
    session.close()
    return Code.OK
