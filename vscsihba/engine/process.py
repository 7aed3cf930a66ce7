"""An engine as a process of its own: it starts without LUNs, which requests add later.

It writes one line of JSON to standard output: that it is ready, or why not. From then on it runs until it is
told to end, even if the process that started it has ended.
"""

import json
import logging
import os
import signal
from collections.abc import Sequence
from functools import partial

from vscsihba.engine import privileges, reclaim
from vscsihba.engine.descriptors import raise_limit
from vscsihba.engine.owning.locks import SERVICE
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.shutdown import end_when_free, outlive_shutdown
from vscsihba.engine.target import Target
from vscsihba.errors import HostError, InUseError, VscsihbaError
from vscsihba.logs import log_in_background

log = logging.getLogger(__name__)

_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def main(arguments: Sequence[str]) -> int:
    """Serve the HBA whose id is the only argument; return the exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # in all threads: `_wait` receives them
    hba_id = int(arguments[0])
    raise_limit()
    reclaim.protect()  # needs capabilities that are dropped below
    outlive_shutdown()
    try:
        privileges.drop()
        listener = log_in_background(f"hba{hba_id}", logging.INFO)
    except VscsihbaError as error:
        _report(error)
        return error.exit_code
    try:
        return _serve(hba_id)
    finally:
        listener.stop()


def _serve(hba_id: int) -> int:
    listeners = Listeners(failed=log.error, notice=log.info)
    try:
        target = Target(hba_id, [], listeners=listeners, by=SERVICE, end=lambda **how: _end(target, **how))
        with target:
            if _report(None) or target.status()["luns"]:
                log.info("engine %d serves", os.getpid())
                _wait(target)
            else:
                log.info("engine %d ends: the service that started it has ended", os.getpid())
    except (VscsihbaError, OSError) as error:
        log.error("engine %d ends: %s", os.getpid(), error)  # noqa: TRY400 - the message is enough
        reported = error if isinstance(error, VscsihbaError) else HostError(str(error))
        _report(reported)
        return reported.exit_code
    return 0


def _end(target: Target, *, when_free: bool = False) -> None:
    """End the process on request.

    Args:
        target: The engine.
        when_free: Wait until no disk that ends with the process is in use: the machine shuts down.

    Raises:
        InUseError: A disk that ends with the process is in use.
    """
    if when_free:
        end_when_free(target.users, partial(os.kill, os.getpid(), signal.SIGTERM))
        return
    if users := target.users():
        raise InUseError(f"HBA {target.id} is in use: {users[0]}", cure="release it first")
    os.kill(os.getpid(), signal.SIGTERM)


def _wait(target: Target) -> None:
    """Wait for a signal to end; ignore it while a disk that ends with the process is in use."""
    while True:
        number = signal.sigwait(_ENDING)
        if not (users := target.users()):
            return
        log.warning("signal %d is ignored: %s", number, users[0])


def _report(error: VscsihbaError | None) -> bool:
    """Report the start to the starter, once; standard output is not read after that.

    Returns:
        Whether the starter still runs. If not, a new service may have looked for engines too early to know
        this one.
    """
    report: dict[str, object] = {"ready": error is None}
    if error is not None:
        report |= {"message": error.message, "cure": error.cure, "exit_code": error.exit_code}
    line = json.dumps(report).encode() + b"\n"
    try:
        os.write(1, line)
    except BrokenPipeError:
        return False
    finally:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return True
