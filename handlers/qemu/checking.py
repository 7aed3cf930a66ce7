"""Checks of the tables of an image by ``qemu-img check``, and freeing of its leaks.

A leak is an allocated cluster of a qcow2 image that nothing uses. A daemon that was killed may leave
some: it allocates a cluster first, and enters it into a table later. They do no harm but take space.
"""

import errno
import json
import logging
from typing import Any

from vscsihba.errors import HostError, InUseError
from vscsihba.handlers.qemu import programs
from vscsihba.handlers.qemu.image import ImageInfo, failure

log = logging.getLogger(__name__)

_COUNTS = ("corruptions", "leaks", "check-errors")
_CHECKED = (0, 2, 3)
"""Exit codes of ``qemu-img check`` that come with a result: no fault, corruptions, leaks."""


def check(info: ImageInfo, secret: bytes | None, *, timeout: float | None = None) -> dict[str, Any]:
    """Check the tables of an image, which may be open; repair nothing.

    Args:
        info: The image; nothing may be written to it meanwhile.
        secret: Its key, None if it has none.
        timeout: Seconds after which the check is given up.

    Returns:
        The result of qemu-img: numbers of ``corruptions``, ``leaks``, ``check-errors`` and others.

    Raises:
        TimeoutError: It takes longer.
        OSError: EOPNOTSUPP: the format has no check.
        HostError: It cannot be checked.
    """
    return _run(info, secret, ["-U"], timeout, [])


def free_leaks(info: ImageInfo, secret: bytes | None, *, lock: int, timeout: float) -> None:
    """Free the leaks of a qcow2 image, which no process may have open; a failure is only logged.

    Args:
        info: The image; one of another format has no leaks.
        secret: Its key, None if it has none.
        lock: Descriptor that qemu-img inherits, so that a lock lives as long as it.
        timeout: Seconds after which this is given up; leaks may be left then.

    Raises:
        InUseError: Another program has the image open.
    """
    if info.format != "qcow2":
        return
    try:
        result = _run(info, secret, ["-r", "leaks"], timeout, [lock])
    except InUseError:
        raise
    except (HostError, OSError) as error:
        log.warning(
            "%s: clusters that nothing uses may take space (%s); while no disk uses the image, "
            "qemu-img check -r leaks %s frees them",
            info.path,
            error,
            info.path,
        )
        return
    if freed := result.get("leaks-fixed"):
        log.warning("%s: %d clusters that nothing used are free again", info.path, freed)
    if result["corruptions"]:
        log.error("%s is damaged: qemu-img check finds %d corruptions", info.path, result["corruptions"])


def _run(
    info: ImageInfo, secret: bytes | None, options: list[str], timeout: float | None, inherited: list[int]
) -> dict[str, Any]:
    with programs.key_object(secret) as (files, key_options):
        command = [
            "check",
            *options,
            "--output=json",
            *key_options,
            _place(info, encrypted=secret is not None),
        ]
        done = programs.run("qemu-img", command, files=[*files, *inherited], timeout=timeout)
    if done.returncode not in _CHECKED:
        message = programs.in_one_line(done.stderr)
        if "does not support checks" in message:
            raise OSError(errno.EOPNOTSUPP, f"the format {info.format} has no check")
        raise failure(info.path, message)
    result = json.loads(done.stdout)
    return {
        **dict.fromkeys(_COUNTS, 0),
        **(result if isinstance(result, dict) else {}),
        "filename": info.path,
    }


def _place(info: ImageInfo, *, encrypted: bool) -> str:
    """Return the image as a file name that says how it is opened."""
    node: dict[str, Any] = {"driver": info.format, "file": info.file_node()}
    return "json:" + json.dumps(node | (info.key_options() if encrypted else {}))
