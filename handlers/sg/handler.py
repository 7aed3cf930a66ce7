"""sg: another SCSI device of any type behind a LUN of ours: every command is passed on to it.

The device answers for itself: its name, its serial number, its capacity and its sense data
are those that initiators see. `device` knows how such a device is opened and locked, `sg_io` how a
command is sent, `cdb` what a CDB does not say of itself, `timeouts` how long it may take.
"""

import errno
import os
from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from vscsihba.block import Buffer, Capabilities, Executed, Geometry, Views
from vscsihba.handlers.base import Handler
from vscsihba.handlers.cdb_handler import CdbHandler
from vscsihba.handlers.options import MediumPath, Positive
from vscsihba.handlers.sg import device as sg_device
from vscsihba.handlers.sg import sg_io
from vscsihba.handlers.sg.cdb import Direction, direction_of, length_of
from vscsihba.handlers.sg.device import SgDevice
from vscsihba.handlers.sg.timeouts import timeout_of

_BLOCK_LIMITS = bytes((0x12, 0x01, 0xB0))
"""The beginning of an INQUIRY for the page that says how much one command may move."""


class SgHandler(CdbHandler):
    """Another SCSI device, which executes every command."""

    name = "sg"
    example = "sg:/dev/sg3"
    workers = 32

    class Options(Handler.Options, kw_only=True):
        """Options of the sg handler."""

        path: Annotated[MediumPath, Meta(description="The device, /dev/sgN.", min_length=1)]
        timeout: Annotated[
            Positive,
            Meta(
                description="Least time limit of a command in seconds. Tapes, burners and changers have "
                "longer limits; for formatting, self-tests and tape motions it is a day."
            ),
        ] = 25.0

    options: Options

    def check(self) -> None:
        """Check that the device is there.

        Raises:
            UsageError: There is not, or it may not be used.
        """
        sg_device.check(self.options.path)

    def open(self) -> None:
        """Open and lock the device, and read its capacity.

        Raises:
            InUseError: Somebody else has it.
            HostError: It does not answer.
            UsageError: It has blocks of a size that Linux has no disks of.
        """
        self._device = SgDevice(self.options.path)
        self._limit = sg_io.most_bytes(self._device.fd)

    def close(self) -> None:
        """Close the device."""
        self._device.close()

    @property
    def geometry(self) -> Geometry:
        """The answer to READ CAPACITY when it was opened."""
        return self._device.geometry

    @property
    def capabilities(self) -> Capabilities:
        """Whole CDBs, for a device of its type."""
        return replace(super().capabilities, device_type=self._device.type)

    @property
    def identity(self) -> str:
        """The device's own identification."""
        return f"sg:{self._device.identity}"

    def execute(self, cdb: bytes, views: Views) -> Executed:
        """Pass a command on, and bring the answer back.

        Raises:
            OSError: EOPNOTSUPP for data both ways; others as `vscsihba.handlers.sg.sg_io.send`.
        """
        command = cdb[: length_of(cdb)]
        direction = direction_of(command, self._device.type)
        if direction is Direction.BOTH:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        timeout = timeout_of(command, self._device.type, self.options.timeout)
        outcome = sg_io.send(self._device.fd, command, views, direction, timeout)
        data_in = outcome.moved if direction is Direction.IN else None
        if data_in is not None and command.startswith(_BLOCK_LIMITS):
            self._lower_limits(Buffer(views), data_in)
        return Executed(outcome.status, outcome.sense, data_in)

    def _lower_limits(self, page: Buffer, length: int) -> None:
        """Let MAXIMUM TRANSFER LENGTH (SBC-4 "Block Limits") allow no more than the adapter in between."""
        if length < 12 or not self._limit:
            return
        allowed = self._limit // self._device.geometry.block_size
        said = int.from_bytes(page.gather(8, 4), "big") or allowed
        page.scatter(min(said, allowed).to_bytes(4, "big"), 8)
