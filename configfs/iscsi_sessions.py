"""Sessions of iSCSI targets in the kernel: the initiators that are logged in, and sessions that cannot end.

Reads files only. The kernel tells nothing of a connection of an initiator that is not listed in the target.
"""

from pathlib import Path
from typing import Final

from vscsihba.configfs import observer, paths
from vscsihba.configfs.iscsi_spec import Refusals, Session

_ENDING: Final = "TARG_CONN_STATE_CLEANUP_WAIT"
"""State of a connection that has gone while its commands are not done (iscsi_target_core.h)."""
_LOGIN_THREAD: Final = "iscsi_np"
_REFUSED: Final = {4, 5}
"""Failures of authorization and authentication (iscsi_target_stat.h)."""
_UNINTERRUPTIBLE: Final = "D"
"""State of a process in /proc (proc(5))."""


def sessions_of(name: str) -> list[Session]:
    """Return the sessions of a target, by initiator."""
    group = paths.iscsi() / name / observer.PORTAL_GROUP
    found = {entry.name: _session(entry) for entry in paths.entries(group / "acls")}
    known = {initiator: session for initiator, session in found.items() if session is not None}
    for initiator in (paths.read(group / "dynamic_sessions") or "").replace("\0", "\n").split():
        known.setdefault(initiator, Session(initiator))
    return [session for _, session in sorted(known.items())]


def refusals_of(name: str) -> Refusals:
    """Return the logins to a target that were refused (iscsi_target_stat.c)."""
    folder = paths.iscsi() / name / "fabric_statistics"
    logins, last = folder / "iscsi_login_stats", folder / "iscsi_tgt_attr"
    count = sum(paths.read_int(logins / file) or 0 for file in ("authorize_fails", "authenticate_fails"))
    if paths.read_int(last / "last_fail_type") not in _REFUSED:
        return Refusals(count)
    return Refusals(
        count, paths.read(last / "fail_intr_name") or "", paths.read(last / "fail_intr_addr") or ""
    )


def ending_sessions(name: str) -> frozenset[str]:
    """Return the listed initiators whose connection has gone while the kernel waits for its commands."""
    acls = paths.entries(paths.iscsi() / name / observer.PORTAL_GROUP / "acls")
    return frozenset(acl.name for acl in acls if _ENDING in (paths.read(acl / "info") or ""))


def logins_wait() -> bool:
    """Return whether a login waits for the end of the session that it replaces, of any target.

    Its portal takes no other login meanwhile (iscsi_target_login.c, iscsi_check_for_session_reinstatement).
    """
    return any(_is_waiting_login(process) for process in paths.PROC.glob("[0-9]*/stat"))


def _is_waiting_login(process: Path) -> bool:
    name, _, rest = (paths.read(process) or "").partition("(")[2].rpartition(")")
    return name == _LOGIN_THREAD and rest.split()[:1] == [_UNINTERRUPTIBLE]


def _session(acl: Path) -> Session | None:
    """Return the session of an initiator (iscsi_target_configfs.c, lio_target_nacl_info_show)."""
    info = paths.read(acl / "info") or "No active"
    if info.startswith("No active"):
        return None
    connections = [words for line in info.splitlines() if (words := line.split())[:1] == ["Address"]]
    return Session(acl.name, tuple(words[1] for words in connections if len(words) > 1))
