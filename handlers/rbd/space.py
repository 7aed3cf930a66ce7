"""Space of an image: the objects that it has, and the room that its pool has left."""

import errno
import json
from typing import Any

from vscsihba.block import Space
from vscsihba.handlers.rbd import library


def space_of(cluster: Any, image: Any) -> Space | None:
    """Return the space of an image in whole objects.

    Args:
        cluster: The connected ``rados.Rados``.
        image: The open ``rbd.Image``.

    Returns:
        None if the image has no valid map of its objects (fast-diff), so that each of them would have to be
        asked for, or if the cluster does not know its free space (no manager runs).

    Raises:
        rados.Error, rbd.Error: The cluster does not answer.
        OSError: It refuses.
    """
    rbd = library.rbd()
    if not image.features() & rbd.RBD_FEATURE_FAST_DIFF or image.flags() & rbd.RBD_FLAG_FAST_DIFF_INVALID:
        return None
    number, answer, reason = cluster.mon_command(json.dumps({"prefix": "df", "format": "json"}), b"")
    if number:
        raise OSError(abs(number), f"ceph df: {reason or errno.errorcode.get(abs(number), number)}")
    free = _free(json.loads(answer), image.data_pool_id())
    return None if free is None else Space(available=free, used=_used(image))


def _free(report: dict[str, Any], pool: int) -> int | None:
    """Return the bytes that a pool can still take, by the answer to ``ceph df``; None if it does not say."""
    for each in report.get("pools", []):
        if each.get("id") == pool and "max_avail" in each.get("stats", {}):
            return int(each["stats"]["max_avail"])
    return None


def _used(image: Any) -> int:
    lengths: list[int] = []

    def add(_offset: int, length: int, exists: bool) -> None:  # noqa: FBT001 - librbd's callback
        if exists:
            lengths.append(length)

    image.diff_iterate(0, image.size(), None, add, include_parent=False, whole_object=True)
    return sum(lengths)
