"""Running a function in a forked process, with a limit on how long it takes. Knows nothing of tests."""

import faulthandler
import json
import os
import select
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

_WATCHDOG: Final = 1
"""Exit status of a process that `faulthandler.dump_traceback_later` has ended."""


def in_a_child(work: Callable[[], Any], limit: float) -> tuple[Any, bool]:
    """Run a function in a forked process, which ends with all that it started.

    Args:
        work: Its result is sent as JSON.
        limit: Seconds after which the process is killed.

    Returns:
        The result, None if there is none, and whether the limit was met, or one set by `end_after`.
    """
    with tempfile.TemporaryFile() as result:
        child = os.fork()
        if child == 0:
            _be_a_child(work, result.fileno())
        pidfd = os.pidfd_open(child)
        try:
            hung = not select.select([pidfd], [], [], limit)[0]
        finally:
            os.close(pidfd)
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        hung = hung or (os.WIFEXITED(status) and os.WEXITSTATUS(status) == _WATCHDOG)
        result.seek(0)
        text = result.read()
    return (json.loads(text) if text and not hung else None), hung


def end_after(seconds: float) -> None:
    """End this process, a child, in so many seconds, even if it hangs; a further call sets a new limit."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)


def _be_a_child(work: Callable[[], Any], fd: int) -> None:
    try:
        os.setsid()
        os.pwrite(fd, json.dumps(work()).encode(), 0)
    finally:
        os._exit(0)
