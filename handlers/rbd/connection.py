"""A connection to a Ceph cluster and one of its pools, with time limits; errors name the pools that exist.

Each open image has a connection of its own. A client that loses the lock of an image is blocked as a whole,
so with a shared connection all images of an engine would be lost with one.
"""

import errno
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vscsihba.errors import HostError, UsageError, VscsihbaError
from vscsihba.handlers.options import did_you_mean
from vscsihba.handlers.rbd import library
from vscsihba.handlers.rbd.options import RbdOptions
from vscsihba.handlers.shared.private_file import check_private

_MOST_NAMES = 12
"""Names that an error message lists at most."""


def connect(options: RbdOptions) -> Any:
    """Return a connected ``rados.Rados``.

    Raises:
        UsageError: The configuration, the user or the keyring is wrong.
        HostError: The cluster does not answer, or a package is missing.
    """
    rados = library.rados()
    library.rbd()
    options.check_files()
    try:
        cluster = rados.Rados(conffile=options.conf, rados_id=options.user)
        for name, value in _settings(options).items():
            cluster.conf_set(name, value)
    except rados.Error as error:
        raise UsageError(f"{options.conf}: {error}") from error
    if not options.keyring:
        _check_default_keyring(cluster)
    try:
        cluster.connect()
    except rados.Error as error:
        raise _explain(options, cluster, error) from error
    return cluster


def open_pool(cluster: Any, options: RbdOptions) -> Any:
    """Return an I/O context of the pool and the namespace of the image.

    Raises:
        UsageError: There is no such pool or namespace.
    """
    rados = library.rados()
    try:
        pool = cluster.open_ioctx(options.pool)
    except rados.ObjectNotFound as error:
        raise no_such("pool", options.pool, cluster.list_pools()) from error
    try:
        _select_namespace(pool, options)
        # A full pool is an error (ENOSPC, EDQUOT), not a wait without end.
        pool.set_osdmap_full_try()
    except BaseException:
        pool.close()
        raise
    return pool


def _select_namespace(pool: Any, options: RbdOptions) -> None:
    rbd, name = library.rbd(), options.namespace
    if name and not rbd.RBD().namespace_exists(pool, name):
        raise no_such("namespace", f"{options.pool}/{name}", rbd.RBD().namespace_list(pool), word=name)
    pool.set_namespace(name)


def no_such(kind: str, name: str, known: Iterable[str], *, word: str = "") -> UsageError:
    """Return the error for a name that does not exist: it names those that do.

    Args:
        kind: The kind of thing, such as a pool.
        name: The name in full.
        known: The names that exist.
        word: The name as it stands among them, if that is shorter.
    """
    known = sorted(known)
    if not known:
        return UsageError(f"there is no {kind} {name}", cure=f"there is no {kind} at all")
    cure = did_you_mean(word or name, known[:_MOST_NAMES])
    more = len(known) - _MOST_NAMES
    if more > 0 and cure.startswith("known are"):
        cure += f", and {more} more"
    return UsageError(f"there is no {kind} {name}", cure=cure)


def _settings(options: RbdOptions) -> dict[str, str]:
    """Return settings of librados and librbd that override those of the configuration file."""
    # The cluster's operations end before the requests that they belong to.
    seconds = str(max(1, math.floor(options.timeout * 0.8)))
    settings = {
        "client_mount_timeout": seconds,
        "rados_mon_op_timeout": seconds,
        "rados_osd_op_timeout": seconds,
        # A write is acknowledged when all replicas have it on stable storage.
        "rbd_cache": "false",
        "rbd_plugins": "",
        "rbd_persistent_cache_mode": "disabled",
        # Late writes of a client that has lost the lock are refused.
        "rbd_blocklist_on_break_lock": "true",
    }
    if options.keyring:
        settings["keyring"] = options.keyring
    return settings


def _check_default_keyring(cluster: Any) -> None:
    """Refuse the keyring that the configuration leads to if other users can read it."""
    for path in str(cluster.conf_get("keyring") or "").replace(";", ",").split(","):
        if Path(path.strip()).is_file():
            check_private(path.strip(), "keyring")
            return


def _explain(options: RbdOptions, cluster: Any, error: Exception) -> VscsihbaError:
    """Return one line about a connection that was refused."""
    user = f"client.{options.user}"
    match library.number_of(error):
        case errno.ETIMEDOUT:
            return HostError(
                f"the Ceph cluster of {options.conf} does not answer", cure="check mon_host and the network"
            )
        case errno.EACCES | errno.EPERM:
            return UsageError(f"the Ceph cluster refuses {user}", cure="check the user and its key")
        case errno.ENOENT:
            where = options.keyring or cluster.conf_get("keyring")
            return UsageError(f"there is no key of {user} in {where}", cure='name a file in "keyring"')
        case _:
            return HostError(f"no connection to the Ceph cluster of {options.conf}: {error}")
