"""An engine as a process of its own: started for an HBA, without LUNs, which others give it.

Says on standard output, in one line of JSON, that it is ready or why not. Lives from then on as long as
it is not asked to end, whether or not its starter does.
"""

import json
import logging
import os
import signal
from collections.abc import Sequence
from functools import partial

from vscsihba.engine import privileges, reclaim
from vscsihba.engine.descriptors import raise_limit
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.shutdown import end_when_free, outlive_shutdown
from vscsihba.engine.target import Target
from vscsihba.errors import HostError, InUseError, VscsihbaError
from vscsihba.logs import log_in_background

log = logging.getLogger(__name__)

BY = "vscsihba"
"""What engines of the service claim an HBA id as."""

_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def main(arguments: Sequence[str]) -> int:
    """Serve the HBA whose id is the only argument; return the exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # for all threads: `_wait` takes them
    hba_id = int(arguments[0])
    raise_limit()
    reclaim.protect()  # while it may
    outlive_shutdown()
    try:
        privileges.drop()
        listener = log_in_background(f"hba{hba_id}", logging.INFO)
    except VscsihbaError as error:
        _say(error)
        return error.exit_code
    try:
        return _serve(hba_id)
    finally:
        listener.stop()


def _serve(hba_id: int) -> int:
    listeners = Listeners(failed=log.error, notice=log.info)
    try:
        target = Target(hba_id, [], listeners=listeners, by=BY, end=lambda **how: _end(target, **how))
        with target:
            if _say(None) or target.status()["luns"]:
                log.info("engine %d serves", os.getpid())
                _wait(target)
            else:
                log.info("engine %d ends: the service that started it is gone", os.getpid())
    except (VscsihbaError, OSError) as error:
        log.error("engine %d ends: %s", os.getpid(), error)  # noqa: TRY400 - it says all
        told = error if isinstance(error, VscsihbaError) else HostError(str(error))
        _say(told)
        return told.exit_code
    return 0


def _end(target: Target, *, when_free: bool = False) -> None:
    """Be asked to end.

    Args:
        target: The HBA.
        when_free: Wait until no disk is in use that would go: the machine goes down.

    Raises:
        InUseError: A disk would go that is in use.
    """
    if when_free:
        end_when_free(target.users, partial(os.kill, os.getpid(), signal.SIGTERM))
        return
    if users := target.users():
        raise InUseError(f"HBA {target.id} is in use: {users[0]}", cure="end that first")
    os.kill(os.getpid(), signal.SIGTERM)


def _wait(target: Target) -> None:
    """Wait for a signal to end; while a disk that would go is in use, go on."""
    while True:
        number = signal.sigwait(_ENDING)
        if not (users := target.users()):
            return
        log.warning("does not end on signal %d, for %s", number, users[0])


def _say(error: VscsihbaError | None) -> bool:
    """Tell the starter how it went, once; nothing reads standard output after that.

    Returns:
        The starter is there. Another service may not know of this engine, having looked too early.
    """
    said: dict[str, object] = {"ready": error is None}
    if error is not None:
        said |= {"message": error.message, "cure": error.cure, "exit_code": error.exit_code}
    line = json.dumps(said).encode() + b"\n"
    try:
        os.write(1, line)
    except BrokenPipeError:
        return False
    finally:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return True
