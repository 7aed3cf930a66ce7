"""The payload of a container: whole sectors, encrypted on the layer below, read and written as plaintext.

Ciphertext is read into the views of a request and decrypted there; ciphertext to be written is made in a
buffer of its own, since a writer's views are left as they are. `sectors` knows the cryptography.

Small requests are *inline*: the thread that serves the ring encrypts and decrypts them itself, because a trip
to another thread takes longer. It keeps the interpreter's lock for that. A request above the limit would hold
up the other disks of the engine, so it goes to a thread, which releases the lock.
"""

from vscsihba.block import Buffer, Views
from vscsihba.handlers.base import BatchedWrite, Handler, InlineVerbs, Mover, batched, note_batched
from vscsihba.handlers.encrypt.sectors import Sectors
from vscsihba.handlers.shared.medium_errors import shift_medium_errors
from vscsihba.handlers.shared.rwlock import RWLock

INLINE_SECTORS = 256
"""Sectors that are encrypted or decrypted inline, at most; each takes about a microsecond."""
INLINE_BYTES = 512 << 10
"""Bytes likewise, whatever the size of a sector."""


class Payload:
    """Whole sectors of a container.

    Args:
        below: The layer below.
        start: Byte offset of the first sector there.
        sectors: Encrypts and decrypts them.
        holes: A sector whose ciphertext is all zeroes was never written, or was unmapped: it reads as zeroes.

    Attributes:
        sectors: Replaced by `crypto_erase` of the handler.
    """

    def __init__(self, below: Handler, start: int, sectors: Sectors, *, holes: bool) -> None:
        self.sectors = sectors
        self._below = below
        self._start = start
        self._holes = holes

    def read(self, offset: int, views: Views) -> None:
        """Fill `views`, which together have whole sectors, with the plaintext from `offset` on.

        Raises:
            MediumError, OSError: As `Handler.read`; EIO if the key is wiped.
        """
        if not _are_whole(views, self.sectors.size):
            room = memoryview(bytearray(sum(map(len, views))))
            self.read(offset, [room])
            Buffer(views).scatter(room)
            return
        with shift_medium_errors(-self._start):
            self._below.read(self._start + offset, views)
        self._decrypt(views, offset, keep_lock=False)

    def write(self, offset: int, views: Views, *, fua: bool) -> None:
        """Encrypt `views`, which together have whole sectors, and store them from `offset` on.

        Raises:
            MediumError, OSError: As `Handler.write`; EIO if the key is wiped.
        """

        def store(sealed: memoryview) -> None:
            with shift_medium_errors(-self._start):
                self._below.write(self._start + offset, [sealed], fua=fua)

        if not _are_whole(views, self.sectors.size):
            views = [memoryview(bytearray().join(views))]
        self.sectors.pass_encrypted(views, offset, store)

    def inline(self, gate: RWLock) -> InlineVerbs:
        """Return the inline verbs, made of those of the layer below.

        Args:
            gate: Held together by each write; one that would have to wait for it is not inline.
        """
        below = self._below.inline
        limit = min(INLINE_SECTORS * self.sectors.size, INLINE_BYTES)
        return InlineVerbs(
            read=None if below.read is None else self._inline_read(below.read, below.read_flags, limit),
            write=None if below.write is None else self._inline_write(below.write, below.write_flags, gate),
            write_limit=min(limit, below.write_limit),
        )

    def _inline_read(self, move: Mover, move_flags: int, limit: int) -> Mover:
        start, size = self._start, self.sectors.size

        def read(views: Views, offset: int, _flags: int) -> int:
            length = sum(map(len, views))
            if length > limit or offset % size or not _are_whole(views, size):
                raise BlockingIOError
            if move(views, start + offset, move_flags) != length:
                raise BlockingIOError
            self._decrypt(views, offset, keep_lock=True)
            return length

        return read

    def _inline_write(self, move: Mover, move_flags: int, gate: RWLock) -> Mover:
        start, size, enter, leave = self._start, self.sectors.size, gate.enter_briefly, gate.leave

        def encrypting(move: Mover) -> Mover:
            def write(views: Views, offset: int, _flags: int) -> int:
                if offset % size or not _are_whole(views, size):
                    raise BlockingIOError
                enter()
                try:
                    return self.sectors.pass_encrypted(
                        views,
                        offset,
                        lambda sealed: move([sealed], start + offset, move_flags),
                        keep_lock=True,
                    )
                finally:
                    leave()

            return write

        parts = batched(move)
        return note_batched(
            encrypting(move), BatchedWrite(encrypting(parts.first), encrypting(parts.rest), parts.end)
        )

    def _decrypt(self, views: Views, offset: int, *, keep_lock: bool) -> None:
        size = self.sectors.size
        holes = [(view, _zero_sectors(view, size)) for view in views] if self._holes else []
        self.sectors.decrypt_in_place(views, offset, keep_lock=keep_lock)
        for view, found in holes:
            for at in found:
                view[at : at + size] = bytes(size)


def _are_whole(views: Views, size: int) -> bool:
    """Return whether each view has whole sectors, one at least."""
    return all(len(view) and not len(view) % size for view in views)


def _zero_sectors(view: memoryview, size: int) -> list[int]:
    """Return where the sectors of all zeroes begin; only those whose first byte is zero are looked at."""
    first_bytes, zeroes = bytes(view[::size]), bytes(size)
    candidates = [number * size for number, byte in enumerate(first_bytes) if not byte]
    return [at for at in candidates if bytes(view[at : at + size]) == zeroes]
