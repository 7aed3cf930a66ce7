"""An image: opening it, creating and enlarging it, and the settings that it must not have.

Knows no lock and no request.
"""

import errno
from typing import Any

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.rbd import library
from vscsihba.handlers.rbd.connection import no_such
from vscsihba.handlers.rbd.options import RbdOptions

_CACHED = "a cache that acknowledges writes before they are on stable storage"


def open_image(pool: Any, options: RbdOptions) -> Any:
    """Return the open ``rbd.Image``, None if there is no such image.

    Raises:
        UsageError: There is no such snapshot, or the image has settings that break promises.
        HostError: It cannot be opened.
    """
    rbd = library.rbd()
    try:
        image = rbd.Image(pool, options.image, read_only=options.writes_nothing)
    except rbd.ImageNotFound:
        return None
    except rbd.Error as error:
        raise _refused(options, error) from error
    try:
        if options.snapshot:
            _select_snapshot(image, options)
        elif not options.read_only:
            _check_settings(image, options)
    except BaseException:
        image.close()
        raise
    return image


def missing(pool: Any, options: RbdOptions, *, lost: bool) -> UsageError:
    """Return the error for an image that does not exist.

    Args:
        pool: Its I/O context.
        options: Its name.
        lost: It was made before.
    """
    spec = options.spec.partition("@")[0]
    if lost:
        return UsageError(
            f"there is no image {spec}, and only adding the LUN makes one",
            cure="bring it back; for a new, empty one remove the LUN and add it again",
        )
    return no_such("image", spec, library.rbd().RBD().list(pool), word=options.image)


def create(cluster: Any, pool: Any, options: RbdOptions) -> None:
    """Create the image.

    Raises:
        UsageError: The size, the features or the data pool is wrong.
        HostError: It cannot be created.
    """
    rbd = library.rbd()
    features = None
    if options.features is not None:
        try:
            features = rbd.RBD().features_from_string(",".join(options.features))
        except rbd.Error as error:
            raise UsageError(
                f"librbd does not know all of the features {', '.join(options.features)}",
                cure="see the manual page rbd(8)",
            ) from error
    if options.data_pool and not cluster.pool_exists(options.data_pool):
        raise no_such("pool", options.data_pool, cluster.list_pools())
    try:
        rbd.RBD().create(
            pool,
            options.image,
            options.size,
            order=None if options.object_size is None else options.object_size.bit_length() - 1,
            old_format=False,
            features=features,
            data_pool=options.data_pool or None,
        )
    except rbd.Error as error:
        raise HostError(f"the image {options.spec} cannot be created: {error}") from error


def check_lockable(image: Any, options: RbdOptions) -> None:
    """Refuse an image without the feature that keeps other writers away.

    Raises:
        UsageError: It has no exclusive lock.
    """
    if not image.features() & library.rbd().RBD_FEATURE_EXCLUSIVE_LOCK:
        raise UsageError(
            f"the image {options.spec} has no exclusive lock, so other clients could write to it",
            cure=f'rbd feature enable {options.spec} exclusive-lock; or set "lock": "none"',
        )


def enlarge(image: Any, options: RbdOptions) -> None:
    """Make the image as large as the options say, if it is smaller.

    Raises:
        HostError: It cannot be enlarged.
    """
    rbd = library.rbd()
    if options.size is None or options.create or image.size() >= options.size:
        return
    try:
        image.resize(options.size)
    except rbd.Error as error:
        raise HostError(f"the image {options.spec} cannot be enlarged: {error}") from error


def _select_snapshot(image: Any, options: RbdOptions) -> None:
    rbd = library.rbd()
    try:
        image.set_snap(options.snapshot)
    except rbd.ImageNotFound as error:
        known = [str(snapshot["name"]) for snapshot in image.list_snaps()]
        raise no_such("snapshot", options.spec, known, word=options.snapshot) from error


def _check_settings(image: Any, options: RbdOptions) -> None:
    """Refuse settings of the image or its pool that override ours.

    Raises:
        UsageError: It has some.
    """
    settings = {str(each["name"]): str(each["value"]) for each in image.config_list()}
    faults = {
        "rbd_cache": (_is_write_back(settings), _CACHED),
        "rbd_persistent_cache_mode": (
            settings.get("rbd_persistent_cache_mode", "disabled") != "disabled"
            and "pwl_cache" in settings.get("rbd_plugins", ""),
            _CACHED,
        ),
        "rbd_blocklist_on_break_lock": (
            settings.get("rbd_blocklist_on_break_lock", "true") != "true",
            "locks that are broken without blocking their owners",
        ),
    }
    for name, (wrong, meaning) in faults.items():
        if wrong:
            raise UsageError(
                f"the image {options.spec} is configured for {meaning} ({name})",
                cure=f"rbd config image rm {options.spec} {name} (or rbd config pool rm {options.pool} ...)",
            )


def _is_write_back(settings: dict[str, str]) -> bool:
    if settings.get("rbd_cache", "false") != "true":
        return False
    return settings.get("rbd_cache_policy") != "writethrough" and settings.get("rbd_cache_max_dirty") != "0"


def _refused(options: RbdOptions, error: Exception) -> HostError:
    cure = None
    if library.number_of(error) in (errno.EPERM, errno.EACCES):
        caps = f"mon 'profile rbd' and osd 'profile rbd pool={options.pool}'"
        cure = f"give client.{options.user} the capabilities {caps}"
    return HostError(f"the image {options.spec} cannot be opened: {error}", cure=cure)
