"""The exclusive lock of an image: taking it, also from a client that is dead, and the note for a successor.

The lock of librbd is a lock on the header object of the image, with the address of its owner. An owner that
has taken it explicitly keeps it: writes of all other clients are refused. Whoever breaks a lock first puts
the address of its owner on the blocklist of the cluster. From then on no storage daemon executes a request
of that client, also none that was sent before, so a late write of a dead or stalled owner never follows a
write of the next one.

* An owner of this machine that was killed is known from the note (`LockNote`): its lock is broken at once.
* Another owner is asked for an answer (a notification of the header). If it answers, the image is in use.
  If it does not, its watch of the header ends after ``osd_client_watch_timeout`` (30 s); then its lock is
  broken.
"""

import errno
import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection
from typing import Any

from vscsihba.errors import HostError, InUseError
from vscsihba.handlers.rbd import library
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore

log = logging.getLogger(__name__)

_NOTE = 1024
"""Bytes of a note, so that it lies in one page and is replaced as a whole."""
_ANSWER = 3000
"""Milliseconds that a living client has for its answer."""
_PAUSE = 0.5


class LockNote:
    """The addresses of clients of this machine that may hold the lock of an image.

    It is locked while a process uses the image, and stays when that is killed, so the process that opens it
    next knows that these clients are dead. A second disk of the image is refused.

    Args:
        identity: The image.
        spec: Its name, for messages.

    Attributes:
        dead: Addresses of clients that were killed.

    Raises:
        InUseError: A disk of this machine has the image open.
    """

    def __init__(self, identity: str, spec: str) -> None:
        name = f"rbd-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"
        try:
            self._store = TmpfsStore(name, about=identity.encode())
        except InUseError as error:
            raise InUseError(f"the image {spec} is in use by another disk of this machine") from error
        try:
            self.dead: list[str] = json.loads(self._store.content().rstrip(b"\0 ") or b"[]")
        except ValueError:  # cut short
            self.dead = []
        self._own: list[str] = []

    def begin(self, address: str) -> None:
        """Add the address of this client, before it takes the lock.

        Raises:
            OSError: The note cannot be written.
        """
        self._own = [address]
        self._put([*self.dead, address])

    def acquired(self) -> None:
        """Note that the lock is this client's: those before it are blocked, or had released it.

        Raises:
            OSError: The note cannot be written.
        """
        self.dead = []
        self._put(self._own)

    def close(self, *, released: bool) -> None:
        """Close the note.

        Args:
            released: This client has ended, and holds no lock.
        """
        if released:
            self._put(self.dead)
        self._store.close(forget=released and not self.dead)

    def _put(self, addresses: list[str]) -> None:
        """Replace the addresses; the oldest are left out where there is no room."""
        while len(content := json.dumps(addresses).encode()) > _NOTE:
            addresses = addresses[1:]
        self._store.put(0, content.ljust(_NOTE))


def acquire(
    image: Any,
    pool: Any,
    spec: str,
    *,
    dead: Collection[str],
    patience: float,
    go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Take the exclusive lock of an image, and keep it.

    Args:
        image: The open image.
        pool: Its I/O context.
        spec: Its name, for messages.
        dead: Addresses of clients that are known to be dead.
        patience: Seconds to wait for an owner that does not answer.
        go_on: Whether to go on waiting.

    Raises:
        InUseError: Another client uses the image.
        HostError: The lock cannot be taken.
    """
    rbd = library.rbd()
    deadline = time.monotonic() + patience
    while (owner := _owner(image)) is not None:
        if owner in dead:
            _break(image, spec, owner)
        elif _answers(image, pool, owner):
            raise _in_use(spec, owner)
        elif not _watches(image, owner):
            break  # librbd blocks the owner and breaks its lock when it takes the lock itself
        elif time.monotonic() > deadline or not go_on():
            raise InUseError(
                f"the image {spec} is locked by the client {owner}, which does not answer",
                cure="try again when its watch has ended, after 30 s by default",
            )
        else:
            time.sleep(_PAUSE)
    try:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
    except rbd.ReadOnlyImage as error:
        raise _in_use(spec, _owner(image) or "unknown") from error
    except rbd.Error as error:
        raise _refused(spec, error) from error


def _owner(image: Any) -> str | None:
    """Return the address of the owner of the lock, None if there is none."""
    for owner in image.lock_get_owners():
        return str(owner["owner"])
    return None


def _break(image: Any, spec: str, owner: str) -> None:
    """Block a dead owner, and break its lock; another one may have done so in the meantime."""
    rbd = library.rbd()
    log.warning("rbd %s: the client %s was killed; blocking it and breaking its lock", spec, owner)
    try:
        image.lock_break(rbd.RBD_LOCK_MODE_EXCLUSIVE, owner)
    except (rbd.ImageNotFound, rbd.ImageBusy):
        return
    except rbd.Error as error:
        raise _refused(spec, error) from error


def _watches(image: Any, owner: str) -> bool:
    return any(str(watcher["addr"]) == owner for watcher in image.watchers_list())


def _answers(image: Any, pool: Any, owner: str) -> bool:
    """Return whether the owner is known to be alive: all watchers acknowledge that the header has changed."""
    rados = library.rados()
    try:
        # An empty notification says that the header has changed (librbd/WatchNotifyTypes.cc).
        pool.notify(f"rbd_header.{image.id()}", "", _ANSWER)
    except rados.Error:
        return False
    return _watches(image, owner)


def _in_use(spec: str, owner: str) -> InUseError:
    return InUseError(
        f"the image {spec} is in use by the client {owner}",
        cure='detach it there; to let several clients write, set "lock": "none"',
    )


def _refused(spec: str, error: Exception) -> HostError:
    cure = None
    if library.number_of(error) in (errno.EPERM, errno.EACCES):
        cure = "the user needs the capabilities mon 'profile rbd' and osd 'profile rbd pool=POOL'"
    return HostError(f"the lock of the image {spec} cannot be taken: {error}", cure=cure)
