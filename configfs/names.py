"""Names that mark an object in configfs as one of vscsihba, so that no database is needed.

The WWN of a tcm_loop target contains the HBA's id, and the ``dev_config`` of a backstore the TCMU subtype
``vscsihba``. Pure functions; nothing here reads a file.
"""

import re
from typing import Final

from vscsihba.errors import UsageError

SUBTYPE: Final = "vscsihba"
"""First part of ``dev_config``: ``vscsihba/<config>``."""

MAX_ID: Final = 255
MAX_LUN: Final = 16383
"""Highest LUN of the flat space addressing method (SAM-5, 4.7.7.4)."""

# NAA 5 (IEEE registered), the OUI 001405 that LIO's own WWNs use, "5c51ba" for "SCSIBA", and the id
# in three digits. rtslib does not accept a locally assigned NAA (3), which would fit better.
_WWN_PREFIX: Final = "naa.50014055c51ba"
_WWN: Final = re.compile(re.escape(_WWN_PREFIX) + r"0([0-9a-f]{2})")
_PLACE: Final = re.compile(r"vscsihba(\d{1,3})-lun(\d{1,5})")
_DEVICE_NAME: Final = re.compile(r"vscsihba[A-Za-z0-9._-]*")
_EXPORTED: Final = "/exported"
"""Ends the configuration of a backstore that is linked to no HBA: only exports show it."""
_CONFIG: Final = re.compile(r"[A-Za-z0-9._/+=@-]*")


def check_id(hba_id: int) -> int:
    """Return `hba_id`.

    Raises:
        UsageError: It is not within 0..255.
    """
    if not 0 <= hba_id <= MAX_ID:
        raise UsageError(f"HBA id {hba_id} is out of range", cure=f"use 0 to {MAX_ID}")
    return hba_id


def check_lun(lun: int) -> int:
    """Return `lun`.

    Raises:
        UsageError: It is not within 0..16383.
    """
    if not 0 <= lun <= MAX_LUN:
        raise UsageError(f"LUN {lun} is out of range", cure=f"use 0 to {MAX_LUN}")
    return lun


def wwn_of(hba_id: int) -> str:
    """Return the WWN of the tcm_loop target that is HBA `hba_id`, such as ``naa.50014055c51ba007``.

    Raises:
        UsageError: The id is not within 0..255.
    """
    return f"{_WWN_PREFIX}{check_id(hba_id):03x}"


def initiator_of(wwn: str) -> str:
    """Return the WWN of the initiator port of an HBA of vscsihba, such as ``naa.50014055c51ba107``.

    It is the same each time that the HBA is created, since persistent reservations go by it.
    """
    return f"{_WWN_PREFIX}1{wwn[-2:]}"


def id_of(wwn: str) -> int | None:
    """Return the HBA id that a WWN stands for, or None if the WWN is not one of vscsihba."""
    match = _WWN.fullmatch(wwn)
    return int(match[1], 16) if match else None


def backstore_name(hba_id: int, lun: int) -> str:
    """Return the name of the backstore behind a LUN, as targetcli shows it: ``vscsihba0-lun3``.

    Raises:
        UsageError: The id or the LUN is out of range.
    """
    return f"vscsihba{check_id(hba_id)}-lun{check_lun(lun)}"


def place_of(backstore: str) -> tuple[int, int] | None:
    """Return the HBA's id and the LUN that a backstore's name stands for; None for another name."""
    match = _PLACE.fullmatch(backstore)
    return None if match is None else (int(match[1]), int(match[2]))


def check_name(name: str) -> str:
    """Return `name`.

    Raises:
        UsageError: It is not a name of a backstore of vscsihba. Such a name starts with ``vscsihba``, which
            identifies even a backstore whose creation was cut short before it got its ``dev_config``.
    """
    if not _DEVICE_NAME.fullmatch(name) or len(name) > 64:
        raise UsageError(
            f"{name!r} is not a backstore name",
            cure='start it with "vscsihba" and use up to 64 letters, digits, ".", "_" and "-"',
        )
    return name


def check_config(config: str) -> str:
    """Return `config`, the part of ``dev_config`` after ``vscsihba/``.

    The kernel's control file splits at commas and keeps 255 bytes (TCMU_CONFIG_LEN), rtslib
    refuses colons and reads up to the first space.

    Raises:
        UsageError: The kernel or rtslib would change it.
    """
    if not _CONFIG.fullmatch(config) or len(dev_config(config)) > 255:
        raise UsageError(
            f"{config!r} is not a backstore configuration",
            cure='use letters, digits and "._/+=@-", at most 246 of them',
        )
    return config


def config_of(hba_id: int, lun: int, *, local: bool = True) -> str:
    """Return the configuration of the backstore of a LUN; `local`: it is linked to the HBA."""
    return f"hba{hba_id}/lun{lun}" + ("" if local else _EXPORTED)


def is_local(config: str) -> bool:
    """Return whether a backstore of this configuration is linked to its HBA."""
    return not config.endswith(_EXPORTED)


def dev_config(config: str) -> str:
    """Return the whole ``dev_config`` of a backstore of vscsihba."""
    return f"{SUBTYPE}/{config}"


def is_ours(name: str, configured: str) -> bool:
    """Return whether a TCMU backstore belongs to vscsihba.

    Args:
        name: Its directory's name in configfs.
        configured: Its ``dev_config``, empty while it has none.
    """
    if configured:
        return configured.startswith(f"{SUBTYPE}/")
    return _DEVICE_NAME.fullmatch(name) is not None
