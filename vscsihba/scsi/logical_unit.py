"""One logical unit: its state, and `execute`, through which every command passes.

Sans-IO: `execute` yields block operations and returns a response. Does not know which thread performs the
operations, nor when; nor which initiator sent a command (the transport does not tell), so
a unit attention is reported once.
"""

from collections import deque
from collections.abc import Callable, Generator, Mapping
from types import EllipsisType

from vscsihba.block import (
    BlockOp,
    BlockResult,
    Buffer,
    Capabilities,
    Execute,
    Geometry,
    Keep,
    OnUnit,
)
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.cdb import decode, lookup
from vscsihba.scsi.command import Command, Data, MediumAccess
from vscsihba.scsi.commands.buffers import Buffers
from vscsihba.scsi.commands.inquiry import standard_data
from vscsihba.scsi.commands.maintenance import Timestamp
from vscsihba.scsi.copy.manager import CopyOperations
from vscsihba.scsi.copy.tokens import Tokens
from vscsihba.scsi.counters import Counters
from vscsihba.scsi.failed_flush import FailedFlush
from vscsihba.scsi.faults import sense_of, translate
from vscsihba.scsi.features import offered
from vscsihba.scsi.identity import Identity, Product
from vscsihba.scsi.limits import Limits
from vscsihba.scsi.mode_pages import ModePages, PageKey
from vscsihba.scsi.opcodes import TABLE
from vscsihba.scsi.pending import Pending
from vscsihba.scsi.readiness import Erasure, Readiness
from vscsihba.scsi.response import Background, Response, Status, Steps
from vscsihba.scsi.saved_state import Kept, decode_state, encode_state
from vscsihba.scsi.self_test import SelfTest, SelfTestResult, abort
from vscsihba.scsi.sense import NO_SENSE, CheckCondition, Sense, SenseKey
from vscsihba.scsi.space import SpaceWatch
from vscsihba.stats import LunStats, Tally

_CHANGED = (MediumAccess.WRITABLE, MediumAccess.REPLACED)
"""The requirement of commands that change the medium."""

_SYNCHRONIZE_CACHE = (0x35, 0x91)
"""Operation codes of the commands whose failure tells the sender that acknowledged data is lost."""

_RELYING = (*_SYNCHRONIZE_CACHE, 0x15, 0x55)
"""Operation codes of the commands after which no initiator flushes older writes: also MODE SELECT (WCE=0)."""


class LogicalUnit:
    """A direct access block device.

    Args:
        geometry: Shape of the medium.
        capabilities: Capabilities of the medium.
        identity: The unit's names.
        stats: Counters to keep; the engine's fast path counts into the same.
        read_only: Write protect the medium.
        removable: The medium can be ejected (RMB).
        vendor: T10 VENDOR IDENTIFICATION, at most 8 characters.
        product: PRODUCT IDENTIFICATION, at most 16 characters.
        revision: PRODUCT REVISION LEVEL, at most 4 characters.
        write_cache: Default of WCE.
        max_transfer: Bytes that the transport moves in one command.
        target_core: Linux's target core is in front, and completes some commands itself.
        variable_length: Offer READ(32) and other 32-byte CDBs, although type 2 protection is not supported.
        saved_state: The state of the last `Keep`, empty if there was none.
        clock: Returns milliseconds since 1970.
        failed_flush: Reports acknowledged data that was lost under an earlier engine.

    Attributes (plain, as the engine reads them for each command):
        blocks: Capacity in logical blocks.
        block_size: Logical block length in bytes.
        max_transfer_blocks: MAXIMUM TRANSFER LENGTH.
        fast_path_clear: A plain READ or WRITE may take the fast path.
        has_events: The next command will report a unit attention or a deferred error instead of being run.
        writable: The medium is not write protected.
        table: The rows of the opcode table that this unit has.
        hba_units: The units of the HBA, by LUN; the engine sets it.
        write_through: Every write must reach stable storage before its status (WCE=0).
    """

    def __init__(
        self,
        geometry: Geometry,
        capabilities: Capabilities,
        identity: Identity,
        *,
        stats: LunStats | None = None,
        read_only: bool = False,
        removable: bool = False,
        vendor: str = "VSCSIHBA",
        product: str = "VIRTUAL DISK",
        revision: str = "0001",
        write_cache: bool = True,
        max_transfer: int = 8 << 20,
        target_core: bool = False,
        variable_length: bool = False,
        saved_state: bytes = b"",
        clock: Callable[[], int] = lambda: 0,
        failed_flush: FailedFlush | None = None,
    ) -> None:
        self.capabilities = capabilities
        self.identity = identity
        self.stats = LunStats() if stats is None else stats
        self.counters = Counters(self.stats)
        self.removable = removable
        self.product = Product(vendor, product, revision)
        self.inquiry_data = standard_data(self.product, removable=removable)
        self.timestamp = Timestamp(clock)
        self.failed_flush = failed_flush or FailedFlush(clock=clock)
        self.hba_units: Mapping[int, LogicalUnit] = {}
        self._max_transfer = max_transfer
        self._hardware_protected = read_only or capabilities.read_only
        features = offered(
            capabilities, removable=removable, target_core=target_core, variable_length=variable_length
        )
        self.table = {key: row for key, row in TABLE.items() if row.needs in features}
        self._offered = frozenset(self.table.values())
        self._remember(ModePages(write_cache=write_cache, thin=capabilities.unmap), saved_state)
        self._begin()
        self._shape(geometry)
        self.refresh()

    def _remember(self, mode_pages: ModePages, saved_state: bytes) -> None:
        """Restore the state that an earlier engine has saved."""
        kept = decode_state(saved_state, mode_pages) if saved_state else Kept()
        self.mode_pages = mode_pages
        self.identifying_information = kept.information
        self.readiness = Readiness(kept.erasure)

    def _begin(self) -> None:
        """Set the volatile state to that of a new unit."""
        self.buffers = Buffers()
        self.self_tests: deque[SelfTest] = deque(maxlen=20)
        self.space = SpaceWatch(self.mode_pages)
        self.copies = CopyOperations()
        self.tokens = Tokens()
        self._pending = Pending()

    def _shape(self, geometry: Geometry) -> None:
        """Set the geometry and the limits that follow from it."""
        self.geometry = geometry
        self.blocks = geometry.blocks
        self.block_size = geometry.block_size
        self.limits = Limits.for_medium(
            geometry.block_size, self._max_transfer, self.capabilities.atomic_write
        )
        self.max_transfer_blocks = self.limits.transfer_blocks

    def refresh(self) -> None:
        """Update the plain attributes that the engine and `execute` read; due after every change of state."""
        self._watching = self.space.armed
        self._has_tokens = bool(self.tokens)
        self.has_events = bool(self._pending)
        self.fast_path_clear = not (self.has_events or self._has_tokens or self._watching)
        self.fast_path_clear = self.fast_path_clear and self.readiness.clear
        self.writable = not (self._hardware_protected or self.mode_pages.software_write_protect)
        self.write_through = not self.mode_pages.write_cache_enabled
        self._restricted = self.has_events or not (self.readiness.clear and self.writable)

    # The engine's side.

    def execute(self, cdb: bytes, buffer: Buffer, row: Command | None = None) -> Steps:
        """Run one command: any CDB and any buffer get a response.

        Args:
            cdb: The command descriptor block; bytes after its end are ignored.
            buffer: Data-out, or room for data-in, depending on the command; of any length.
            row: Its row of the opcode table, if you have looked it up.

        The driver performs each block operation and sends the result in, or throws in its
        OSError. Any other exception is a bug and passes through.
        """
        command = row or lookup(cdb)
        if self._has_tokens:
            self.tokens.drop_expired(self.timestamp.clock())
            self.refresh()
        try:
            decoded = decode(cdb, command, self._offered)
            command = decoded.command
            if self._restricted:
                self._check_state(command)
            response = command.run(self, decoded, buffer)
            if not isinstance(response, Response):
                response = yield from translate(
                    response,
                    self.block_size,
                    self.notice,
                    self.failed_flush,
                    reports=command.opcode in _SYNCHRONIZE_CACHE,
                    relies=command.opcode in _RELYING,
                )
            if self._watching and command.medium in _CHANGED:
                yield from self._translated(self.look_at_space())
        except CheckCondition as condition:
            self.counters.failed(command, condition.sense)
            response = self._check_condition(condition.sense, command)
        self.counters.ended(command, response)
        if response.background is not None:
            return response._replace(background=self._translated(response.background))
        return response

    def failed(self, cdb: bytes, operation: BlockOp, fault: OSError) -> Response:
        """Return the response to a command that the engine has begun without `execute`, and that has failed.

        The state of the unit counts as of its beginning: the unit attention of a later reset stays pending.

        Args:
            cdb: The command descriptor block, of a command with one block operation.
            operation: The block operation.
            fault: Its error.
        """
        command, sense = lookup(cdb), sense_of(fault, operation, self.block_size)
        self.counters.failed(command, sense)
        response = self._check_condition(sense, command)
        self.counters.ended(command, response)
        return response

    def _translated(self, work: Background) -> Background:
        return translate(work, self.block_size, self.notice, self.failed_flush, reports=False, relies=False)

    def idempotent(self, cdb: bytes, row: Command | None = None) -> bool:
        """Return whether running a command twice does no harm.

        Args:
            cdb: The command descriptor block.
            row: Its row of the opcode table, if you have looked it up.
        """
        row = row or lookup(cdb)
        return row is None or row.idempotent

    def stores(self, cdb: bytes) -> bool:
        """Return whether GOOD for a command promises that the medium, or its volatile cache, has the data."""
        row = lookup(cdb)
        return row is not None and (row.medium in _CHANGED or row.opcode in _SYNCHRONIZE_CACHE)

    def caches(self, cdb: bytes) -> bool:
        """Return whether a command is a write that may complete before the medium has its data (WCE=1)."""
        try:
            decoded = decode(cdb, lookup(cdb), self._offered)
        except CheckCondition:
            return False
        writes = decoded.command.tally is Tally.WRITES and decoded.command.idempotent
        return writes and not (self.write_through or decoded.get("fua"))

    def notice(self, operation: BlockOp) -> None:
        """Revoke the ROD tokens for data that an operation is about to change, here or on another unit."""
        if isinstance(operation, OnUnit):
            if (peer := self.hba_units.get(operation.lun)) is not None:
                peer.notice(operation.operation)
        elif self._has_tokens and not isinstance(operation, Execute | Keep):
            self.tokens.notice(operation)
            self.refresh()

    def _check_state(self, command: Command) -> None:
        """Check that the unit's state allows a command.

        Raises:
            CheckCondition: The unit has something to report first (SAM-5 "Unit attention
                conditions"), or its medium is not ready or write protected.
        """
        if not command.allowed_with_unit_attention and (pending := self._pending.take()):
            self.refresh()
            raise CheckCondition(pending)
        if obstacle := self.readiness.obstacle(command):
            raise CheckCondition(obstacle)
        if command.medium in _CHANGED and not self.writable:
            raise CheckCondition(Sense(SenseKey.DATA_PROTECT, self._protection()))
        if not self.readiness.clear:
            self.readiness.wake(command)
            self.refresh()

    def _protection(self) -> Asc:
        return Asc.WRITE_PROTECTED if self._hardware_protected else Asc.LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED

    def _check_condition(self, sense: Sense, command: Command | None) -> Response:
        data_in = None if command is not None and command.data is not Data.IN else 0
        encoded = sense.encode(descriptor=self.mode_pages.descriptor_sense)
        return Response(Status.CHECK_CONDITION, encoded, data_in)

    def raise_unit_attention(self, asc: Asc) -> None:
        """Make a unit attention pending, unless the same one is pending already."""
        self._pending.attention(asc)
        self.refresh()

    def forget_events(self) -> None:
        """Clear all pending unit attentions and deferred errors."""
        self._pending.clear()
        self.refresh()

    def power_on(self) -> None:
        """Reset the unit as after a power cycle."""
        self._restart(Asc.POWER_ON_OCCURRED)

    def reset(self) -> None:
        """Do a LOGICAL UNIT RESET (SAM-5): restore saved mode pages, clear older events."""
        self._restart(Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)

    def _restart(self, asc: Asc) -> None:
        self.mode_pages.reset()
        self.readiness.reset()
        abort(self.self_tests, SelfTestResult.ABORTED_BY_RESET)
        self._pending.clear()
        self.raise_unit_attention(asc)

    def resize(self, geometry: Geometry) -> None:
        """Set a new geometry; a unit attention says that the capacity data has changed."""
        self._shape(geometry)
        self.raise_unit_attention(Asc.CAPACITY_DATA_HAS_CHANGED)

    # The commands' side.

    def keep(
        self,
        *,
        saved: Mapping[PageKey, bytes] | None = None,
        information: dict[int, bytes] | None = None,
        erasure: Erasure | EllipsisType | None = ...,
    ) -> Keep:
        """Return the operation that stores the unit's state with a change.

        Make the change itself once the state is stored.

        Args:
            saved: Saved mode pages.
            information: Identifying information.
            erasure: A format or sanitize that runs, or has failed.
        """
        kept = Kept(
            self.identifying_information if information is None else information,
            self.readiness.erasure if erasure is ... else erasure,
        )
        return Keep(encode_state(self.mode_pages.saved if saved is None else saved, kept))

    def look_at_space(self) -> Generator[BlockOp, BlockResult, None]:
        """Ask the medium for its free space; a unit attention says that it has fallen below the threshold."""
        if (yield from self.space.look()):
            self.raise_unit_attention(Asc.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED)

    def defer(self, sense: Sense) -> None:
        """Make the failure of a command that has already ended pending (SPC-5 "Deferred errors")."""
        self._pending.defer(sense)
        self.refresh()

    def take_pending_sense(self) -> Sense:
        """Return and clear the first pending condition; NO SENSE if there is none."""
        sense = self._pending.take() or self.readiness.report() or NO_SENSE
        self.refresh()
        return sense
