"""An image from its opening to its closing: claim, write log, daemon and link together."""

import logging
import time
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from vscsihba.errors import HostError, InUseError
from vscsihba.handlers import asynchronous
from vscsihba.handlers.base import AsyncVerbs
from vscsihba.handlers.encrypt.passphrase import Secret
from vscsihba.handlers.qemu import checking
from vscsihba.handlers.qemu.daemon import Daemon, Plan
from vscsihba.handlers.qemu.image import ImageInfo
from vscsihba.handlers.qemu.image_file import ImageFile
from vscsihba.handlers.qemu.link import open_link
from vscsihba.handlers.qemu.logged_verbs import LoggedVerbs
from vscsihba.handlers.qemu.options import QemuOptions
from vscsihba.handlers.qemu.qmp import QmpError
from vscsihba.handlers.qemu.replay import repeat_changes
from vscsihba.handlers.qemu.run_folder import RunFolder
from vscsihba.handlers.qemu.supervisor import Supervisor
from vscsihba.handlers.qemu.write_log import WriteLog
from vscsihba.handlers.shared.claims import NameClaim

log = logging.getLogger(__name__)

_PATIENCE = 30.0
"""Seconds to wait for the end of a daemon whose engine was killed."""
_PAUSE = 0.1
_FREEING: Final = 5.0
"""Seconds that freeing the leaks of an image may hold up its opening."""


class OpenImage:
    """An open image.

    Args:
        options: How it is opened.
        info: The image.
        secret: Its key, if it has one.

    Attributes:
        info: As above.
        file: Its file.
        log: Its write log; None if it is not written, or every write goes to stable storage.
        supervisor: Keeps its daemon alive.
        link: The way to the daemon.
        disk: The verbs over the link, and the log.

    Raises:
        UsageError, HostError, OSError: As `vscsihba.handlers.qemu.handler.QemuHandler.open`.
    """

    def __init__(self, options: QemuOptions, info: ImageInfo, secret: Secret | None) -> None:
        self.info = info
        self.file = ImageFile(info.path)
        self._options = options
        self._secret = secret
        self._disk: LoggedVerbs | None = None
        self._may_leak = False
        read_only = options.is_read_only
        taken = InUseError(f"{options.path} is in use as a disk", cure="remove that disk first")
        with ExitStack() as opened:
            opened.enter_context(NameClaim(self.file.claim, shared=read_only, taken=taken))
            folder = RunFolder(self.file.claim, read_only=read_only, patience=_PATIENCE)
            opened.callback(folder.close)
            self._plan = Plan(
                info,
                read_only,
                options.snapshot,
                direct=options.cache in ("none", "directsync"),
                writethrough=options.cache in ("writethrough", "directsync") and not read_only,
                folder=folder.path,
                lock=folder.lock,
            )
            if read_only and not options.snapshot:
                self.file.refuse_log()
            self.log = None
            if not read_only:
                self.log, self._may_leak = self.file.open_log(options.log_size)
                opened.callback(self._close_log, self.log)
                if self._may_leak:
                    checking.free_leaks(info, self._key(), lock=folder.lock, timeout=_FREEING)
                    self._may_leak = False
            self.supervisor = Supervisor(options.path, self._start, self._died)
            opened.callback(self._end_daemon)
            self.supervisor.open()
            if self.log is not None:
                self.log.drop(self.log.end)  # repeated and flushed by the first daemon
            self.link = open_link(self._plan.socket, timeout=options.timeout, read_only=read_only)
            opened.callback(self.link.close)
            kept = None if self._plan.writethrough else self.log
            self.disk = self._disk = LoggedVerbs(self.link, kept, options.path, self.supervisor.kill)
            opened.callback(self.disk.close)
            self._opened = opened.pop_all()

    @property
    def verbs(self) -> AsyncVerbs:
        """The asynchronous verbs; those that the format cannot do well are left out."""
        verbs = self.disk.verbs
        if self._options.is_read_only:
            return asynchronous.without(verbs, ("write", "flush", "unmap", "write_zeroes"))
        return verbs if self.info.zeroes else asynchronous.without(verbs, ("unmap",))

    def close(self) -> None:
        """Flush logged writes, and end the daemon; those that cannot be flushed stay in the log."""
        with self._opened:
            if self.log is not None and len(self.log):
                try:
                    asynchronous.wait(partial(self.disk.flush, wait=True))
                except OSError as error:
                    log.warning(
                        "%s: %d writes stay in %s: %s", self.info.path, len(self.log), self.log.path, error
                    )

    def check(self, *, timeout: float) -> dict[str, Any]:
        """Check the tables of the image; its requests wait meanwhile, unless it is only read.

        Args:
            timeout: Seconds that they may wait.

        Raises:
            OSError: The flush before it failed; EOPNOTSUPP: the format has no check.
            HostError: It cannot be checked, or takes too long.
        """
        if self._options.is_read_only:
            return checking.check(self.info, self._key())
        with self.disk.paused():
            try:
                return checking.check(self.info, self._key(), timeout=timeout)
            except TimeoutError as error:
                raise HostError(str(error), cure="check the image while no disk uses it") from error

    def resize(self, size: int) -> None:
        """Change the capacity to `size` bytes.

        Raises:
            QmpError: The format cannot, or there is no room.
            HostError, OSError: The daemon does not answer.
        """
        deadline = time.monotonic() + self._options.timeout
        with self.disk.paused(), self.link.replaced_on_purpose():
            while not self._try_to_resize(size, last=time.monotonic() > deadline):
                time.sleep(_PAUSE)
            self.link.resize(size)

    def _try_to_resize(self, size: int, *, last: bool) -> bool:
        """Have the daemon change the capacity; return False if it has died, unless this is the last try."""
        try:
            self.supervisor.resize(size)
        except QmpError:
            raise
        except (HostError, OSError):
            if last:
                raise
            return False
        return True

    def _start(self) -> Daemon:
        """Start a daemon, and repeat on it the writes that a dead one may have lost."""
        daemon = Daemon(self._plan, self._key())
        with ExitStack() as failing:
            failing.callback(daemon.abandon)
            if self.log is not None and len(self.log):
                log.warning("%s: repeating %d acknowledged writes", self.info.path, len(self.log))
                repeat_changes(daemon.socket, self.log.changes(), flush=self._disk is None)
            daemon.publish()
            failing.pop_all()
        return daemon

    def _key(self) -> bytes | None:
        return None if self._secret is None else self._secret.get()

    def _end_daemon(self) -> None:
        runs = self.supervisor.pid is not None
        if not self.supervisor.close() and runs:
            self._may_leak = True

    def _close_log(self, log: WriteLog) -> None:
        """Close the write log; it stays for the next opening if a killed daemon may have left leaks."""
        log.close(keep=self._may_leak and self.info.format == "qcow2")

    def _died(self) -> None:
        self._may_leak = True
        if self._disk is not None:
            self._disk.died()
