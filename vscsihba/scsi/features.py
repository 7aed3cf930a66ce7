"""What a logical unit may have or lack, and whole commands with it."""

from enum import Enum, auto

from vscsihba.block import Capabilities


class Feature(Enum):
    """What some commands need, to be there at all."""

    ALWAYS = auto()
    UNMAP = auto()
    CRYPTO_ERASE = auto()
    ATOMIC_WRITE = auto()
    REMOVABLE = auto()
    TARGET_CORE = auto()
    VARIABLE_LENGTH = auto()


def offered(
    capabilities: Capabilities, *, removable: bool, target_core: bool, variable_length: bool
) -> frozenset[Feature]:
    """Return what a unit has: from its medium, and from what was asked for it."""
    offers = {
        Feature.ALWAYS: True,
        Feature.UNMAP: capabilities.unmap,
        Feature.CRYPTO_ERASE: capabilities.crypto_erase,
        Feature.ATOMIC_WRITE: capabilities.atomic_write > 0,
        Feature.REMOVABLE: removable,
        Feature.TARGET_CORE: target_core,
        Feature.VARIABLE_LENGTH: variable_length,
    }
    return frozenset(feature for feature, there in offers.items() if there)
