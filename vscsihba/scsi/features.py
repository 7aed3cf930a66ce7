"""Features of a logical unit that decide which commands it has."""

from enum import Enum, auto

from vscsihba.block import Capabilities


class Feature(Enum):
    """A feature that some commands need."""

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
    """Return the features of a unit with these capabilities and options."""
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
