"""The access states of paths: ALUA target port groups of backstores, one for each export that is not active.

The kernel checks the state before a command reaches the ring (target_core_alua.c, target_alua_state_check).
It does not say there over which path the command has come, so the engine cannot report groups (TPGS is 0).
"""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from vscsihba.configfs import backstores, observer, paths
from vscsihba.errors import HostError

ACTIVE: Final = "active"
STATES: Final = {"0": ACTIVE, "2": "standby", "3": "unavailable"}
"""States by the kernel's number (SPC-5, REPORT TARGET PORT GROUPS).

Active/non-optimized (1) is left out: for a TCMU backstore the kernel serves it as it does active/optimized.
"""

_NUMBERS: Final = {state: number for number, state in STATES.items()}
_DEFAULT: Final = "default_tg_pt_gp"
_GROUP: Final = "alua_tg_pt_gp"


def access_state(lun: Path) -> str:
    """Return the state of a fabric's LUN: one of `STATES`, or the kernel's number of another state."""
    alias = (paths.read(lun / _GROUP) or _DEFAULT).partition("\n")[0].rpartition(" ")[2]
    backstore = observer.linked(lun) if alias != _DEFAULT else None
    if backstore is None:
        return ACTIVE
    number = paths.read(backstore / "alua" / alias / "alua_access_state") or "0"
    return STATES.get(number, number)


def set_access_state(lun: Path, backstore: str, group: str, state: str) -> None:
    """Give a fabric's LUN a state; initiators get a unit attention (ASYMMETRIC ACCESS STATE CHANGED).

    Args:
        lun: Its folder in configfs.
        backstore: Name of the backstore behind it.
        group: Name of the port group that the state is kept in.
        state: One of `STATES`.

    Raises:
        HostError: The kernel refuses; the state is as before.
    """
    folder = backstores.directory_of(backstore) / "alua" / group
    if state == ACTIVE and not folder.is_dir():
        return
    with ExitStack() as undo:
        if not folder.is_dir():
            _make(folder)
            undo.callback(forget, backstore, group)
        number = folder / "alua_access_state"
        undo.callback(_write_if_possible, number, paths.read(number) or _NUMBERS[ACTIVE])
        paths.write(number, _NUMBERS[state])
        paths.write(lun / _GROUP, _DEFAULT if state == ACTIVE else group)
        undo.pop_all()
    if state == ACTIVE:
        forget(backstore, group)


def _write_if_possible(file: Path, value: str) -> None:
    with suppress(HostError):
        paths.write(file, value)


def forget(backstore: str, group: str) -> None:
    """Remove a port group that no LUN is in; one that stays does no harm, and goes with its backstore."""
    with suppress(HostError):
        folder = backstores.directory_of(backstore) / "alua" / group
        if folder.is_dir():
            paths.remove_directory(folder)


def _make(folder: Path) -> None:
    """Create a port group with the lowest free number."""
    taken = {paths.read_int(each / "tg_pt_gp_id") for each in paths.entries(folder.parent)}
    paths.make_directory(folder)
    with ExitStack() as undo:
        undo.callback(paths.remove_directory, folder)
        number = next(number for number in range(1, len(taken) + 2) if number not in taken)
        paths.write(folder / "tg_pt_gp_id", str(number))
        undo.pop_all()
