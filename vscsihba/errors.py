"""The exception tree: every failure that the host's side can cause.

    VscsihbaError               carries the message, an optional cure, and the exit code
    +-- UsageError              the user's input is wrong (exit code 2)
    |   +-- NoSuchFileError     the storage of a disk does not exist
    |   +-- ConfigError         ... at a place inside a document
    +-- HostError               this machine lacks something, or refuses it (exit code 1)
    |   +-- InUseError          another process or program uses it
    |   +-- SandboxError        the sandbox cannot be made (exit code 125, as env(1) has it)
    +-- TransportError          a ring cannot be served
        +-- DeviceGoneError     the kernel removed the device
        +-- RingCorruptError    the contents of the ring break the ABI
        +-- JournalDamagedError a predecessor's journal of the ring cannot be used
        +-- EngineFaultError    the code that serves the ring has failed

Media failures are not in this tree: a handler reports them as ``OSError`` with an
errno, like the system calls it is made of (`MediumError` adds the place, `NotBegunError`
says that nothing was tried). Commands of an initiator never raise: they end with sense data.

This module knows nothing else of the package.
"""

import errno


class VscsihbaError(Exception):
    """Base of every error that is shown to a person as one line.

    Args:
        message: The fault and its place, lower case, no full stop.
        cure: The remedy, appended after ``; ``.
    """

    exit_code = 1

    def __init__(self, message: str, *, cure: str | None = None) -> None:
        self.message = message
        self.cure = cure
        super().__init__(message if cure is None else f"{message}; {cure}")


class UsageError(VscsihbaError):
    """The input of the user is invalid."""

    exit_code = 2


class NoSuchFileError(UsageError):
    """A file that should have the content of a disk does not exist."""


class ConfigError(UsageError):
    """A document is wrong at a named place, such as ``$.hbas[0].id``."""

    def __init__(self, place: str, message: str, *, cure: str | None = None) -> None:
        self.place = place
        super().__init__(f"{place}: {message}", cure=cure)


class HostError(VscsihbaError):
    """The machine lacks something, or refuses it."""


class InUseError(HostError):
    """Another process or program uses the requested thing."""


class SandboxError(HostError):
    """The sandbox cannot be made on this machine, or its command was not started."""

    exit_code = 125


class TransportError(VscsihbaError):
    """A ring cannot be served any longer."""


class DeviceGoneError(TransportError):
    """The kernel removed the device behind a ring."""


class RingCorruptError(TransportError):
    """The contents of a ring break the kernel's ABI."""


class JournalDamagedError(TransportError):
    """The journal of a predecessor is damaged, or contradicts the ring."""


class EngineFaultError(TransportError):
    """The code that serves a ring has failed: a bug, or no memory.

    Args:
        fault: The exception.
    """

    def __init__(self, fault: BaseException) -> None:
        super().__init__(f"internal error: {type(fault).__name__}: {fault}", cure="see the engine's log")


class NotBegunError(OSError):
    """A block operation was not begun for want of memory or threads (EAGAIN): it may be repeated.

    Args:
        message: The resource that the machine lacks.
    """

    def __init__(self, message: str) -> None:
        super().__init__(errno.EAGAIN, message)


class MediumError(OSError):
    """Some bytes of the medium cannot be read or written (errno EIO).

    Args:
        offset: Byte offset of the first byte that is lost.
        message: The reason.
    """

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(errno.EIO, message)
        self.offset = offset


class FlushError(OSError):
    """A flush has failed: the medium may have lost data that was written since the last flush.

    Args:
        number: The errno.
        message: The medium.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number, message)
