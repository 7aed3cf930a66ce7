"""The appearance of a disk, as arguments of its SCSI unit and its backstore."""

import pytest

from vscsihba.block import Capabilities, Geometry
from vscsihba.engine.owning.appearance import Appearance
from vscsihba.errors import UsageError
from vscsihba.scsi import Identity, LogicalUnit

SHAPE = Geometry(1 << 20, 4096, 4096)


def unit(appearance: Appearance) -> LogicalUnit:
    return LogicalUnit(SHAPE, Capabilities(), appearance.identity("file:/a"), **appearance.unit_options())


def test_nothing_wanted_changes_nothing() -> None:
    assert Appearance().identity("file:/a") == Identity.derive("file:/a")
    assert Appearance().unit_options() == {"read_only": False}
    assert Appearance().hw_max_sectors(512) == 0


def test_everything_wanted_arrives() -> None:
    built = unit(
        Appearance(
            read_only=True,
            serial="S-1",
            wwn="naa.60014050000000000000000000000001",
            vendor="ACME",
            product="Thing",
            max_sectors=64,
        )
    )
    assert not built.writable
    assert built.identity.serial == "S-1"
    assert built.identity.naa.hex() == "60014050000000000000000000000001"
    assert (built.product.vendor, built.product.name) == ("ACME", "Thing")
    assert built.max_transfer_blocks * 4096 == 64 * 512


@pytest.mark.parametrize(("block_size", "blocks"), [(512, 64), (4096, 8)])
def test_largest_command_is_said_in_the_kernels_unit(block_size: int, blocks: int) -> None:
    assert Appearance(max_sectors=64).hw_max_sectors(block_size) == blocks


def test_name_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="NAA designator"):
        Appearance(wwn="naa.7000000000000001").identity("file:/a")
