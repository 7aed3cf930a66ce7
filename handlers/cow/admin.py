"""Operations on an overlay that no disk uses: inspect, commit into its base, discard.

Each takes the path of the overlay, which is locked meanwhile.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from vscsihba.block import Extent
from vscsihba.errors import UsageError
from vscsihba.handlers.actions import ReportProgress, quiet
from vscsihba.handlers.base import Handler
from vscsihba.handlers.cow.format import DATA, ZERO
from vscsihba.handlers.cow.overlay import Overlay
from vscsihba.handlers.cow.overlay_file import digest, open_overlay

_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class OverlayStatus:
    """The contents of an overlay.

    Attributes:
        size: Capacity of the disk in bytes.
        cluster_size: Bytes of a cluster.
        stored: Bytes of clusters that are stored in the overlay.
        zeroed: Bytes of clusters that are zeroes, whatever the base has.
        base: Identity of its base.
        base_size: Size of its base in bytes.
        committing: A commit was begun and not ended.
    """

    size: int
    cluster_size: int
    stored: int
    zeroed: int
    base: str
    base_size: int
    committing: bool


def status(path: str) -> OverlayStatus:
    """Look into an overlay.

    Raises:
        UsageError, HostError: It cannot be opened, or is damaged.
    """
    overlay = open_overlay(path, read_only=True)
    try:
        header = overlay.header
        return OverlayStatus(
            size=header.size,
            cluster_size=header.cluster_size,
            stored=sum(run.length for run in _runs(overlay, DATA)),
            zeroed=sum(run.length for run in _runs(overlay, ZERO)),
            base=header.base,
            base_size=header.base_size,
            committing=header.committing,
        )
    finally:
        overlay.close()


def commit(path: str, base: Handler, *, progress: ReportProgress = quiet) -> None:
    """Write the clusters of an overlay into its base, and leave it empty.

    When this is interrupted, base and overlay together still have everything; doing it
    again completes it, and no disk opens until then. Other overlays on the same base
    see it change under them, and refuse it.

    Args:
        path: The overlay.
        base: Its base, open and writable.
        progress: Told the bytes that are done, and how many there are.

    Raises:
        UsageError: This is not its base, or has another size and cannot change it.
        OSError: The base cannot take it.
    """
    overlay = open_overlay(path, read_only=False)
    try:
        header = overlay.header
        _check_base(overlay, base)
        if not header.committing:
            overlay.replace_header(msgspec.structs.replace(header, committing=True))
        if base.geometry.size != header.size:
            _resize(overlay, base)
        _copy(overlay, base, progress)
        base.flush()
        overlay.clear(
            msgspec.structs.replace(
                overlay.header, base_size=header.size, base_digest=digest(base), committing=False
            )
        )
    finally:
        overlay.close()


def discard(path: str) -> None:
    """Discard the clusters of an overlay; the disk is as its base again.

    After a crash it holds everything or nothing.

    Raises:
        UsageError: A commit was begun: the base alone is not what it was.
    """
    overlay = open_overlay(path, read_only=False)
    try:
        if overlay.header.committing:
            raise UsageError(f"{path}: a commit into its base was interrupted", cure="commit it again")
        size = max(overlay.header.size, overlay.header.base_size)
        overlay.clear(msgspec.structs.replace(overlay.header, size=size))
    finally:
        overlay.close()


def recover(path: str, *, take: bool) -> None:
    """Decide on the writes of a killed process where its note is not clear.

    Args:
        path: The overlay.
        take: They are for this file, and go into it; else it is a copy, and is used without them.
    """
    open_overlay(path, read_only=False, recover=take).close()


def renew_uuid(path: str) -> str:
    """Give an overlay, which is a copy of another one, a uuid of its own, and return it.

    Its disk has another serial number and NAA name from then on.
    """
    overlay = open_overlay(path, read_only=False)
    try:
        header = msgspec.structs.replace(
            overlay.header, uuid=str(uuid.uuid4()), map_uuid=overlay.header.map_name
        )
        overlay.replace_header(header)
        return header.uuid
    finally:
        overlay.close()


def _check_base(overlay: Overlay, base: Handler) -> None:
    """Make sure that it is the right base; after an interrupted commit its content is not what it was."""
    header = overlay.header
    # After an interrupted commit there is no digest to tell by, so only the lasting name will do.
    same = base.identity == header.base if header.committing else base.is_known_as(header.base)
    if not header.committing:
        same = same and (base.geometry.size, digest(base)) == (header.base_size, header.base_digest)
    if not same:
        raise UsageError(
            f"{base.identity} is not the base of the overlay, or has changed",
            cure=f"its base is {header.base}",
        )


def _resize(overlay: Overlay, base: Handler) -> None:
    """Give the base the size of the overlay; if it cannot have it, the commit has not begun."""
    size = overlay.header.size
    try:
        base.resize(size)
    except OSError as error:
        overlay.replace_header(msgspec.structs.replace(overlay.header, committing=False))
        raise UsageError(f"the base cannot get the size of the overlay, {size} bytes: {error}") from error


def _copy(overlay: Overlay, base: Handler, progress: ReportProgress) -> None:
    zeroed, stored = list(_runs(overlay, ZERO)), list(_runs(overlay, DATA))
    total = sum(run.length for run in (*zeroed, *stored))
    done = 0
    for run in zeroed:
        base.write_zeroes(run.offset, run.length, may_unmap=True)
        done += run.length
        progress(done, total)
    room = memoryview(bytearray(_AT_ONCE))
    for run in stored:
        for offset in range(run.offset, run.end, _AT_ONCE):
            view = room[: min(_AT_ONCE, run.end - offset)]
            overlay.read(offset, [view])
            base.write(offset, [view])
            done += len(view)
            progress(done, total)


def _runs(overlay: Overlay, wanted: int) -> Iterator[Extent]:
    return (run for state, run in overlay.runs(0, overlay.header.size) if state == wanted)
