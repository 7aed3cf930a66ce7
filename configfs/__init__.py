"""The kernel's side of a virtual disk: backstores, HBAs and LUNs in configfs, and their device nodes.

The order of a disk's life, in which a ring must be served before a LUN is linked to it and
until after it is unlinked:

    prepare()
    backstore = create_backstore(spec)      open and serve backstore.uio
    create_hba(id)
    link_lun(id, lun, backstore.name)       blocks while the kernel scans the LUN
    device = wait_for_lun(id, lun)
    ...
    unlink_lun(id, lun)                     blocks while the kernel flushes
    delete_hba(id)                          stop serving, close backstore.uio
    delete_backstore(backstore.name)

Each function undoes its own partial work when it fails. Undoing whole changes is the caller's part:
`vscsihba.engine.owning.luns` for one LUN, `vscsihba.daemon` for a document. Everything raises
`vscsihba.errors.HostError` or `UsageError` and nothing else.
"""

from vscsihba.configfs.backstores import (
    create_backstore,
    delete_backstore,
    find_backstore,
    free_kept_buf,
    reset_ring,
    resize_backstore,
    set_attribute,
    set_block,
)
from vscsihba.configfs.completions import complete_where_answered
from vscsihba.configfs.devices import (
    LunDevice,
    links_of,
    node_timeout,
    wait_for_generic,
    wait_for_lun,
    wait_for_uio,
)
from vscsihba.configfs.found import Backstore, Hba, Lun, Observed
from vscsihba.configfs.hbas import (
    create_hba,
    default_queue_depth,
    delete_hba,
    find_lun,
    link_lun,
    reread_partitions,
    rescan,
    set_command_timeout,
    set_queue_depth,
    unlink_lun,
)
from vscsihba.configfs.leftovers import clear_hba
from vscsihba.configfs.model import BackstoreSpec
from vscsihba.configfs.names import backstore_name, id_of, wwn_of
from vscsihba.configfs.observer import observe
from vscsihba.configfs.others import Other, others
from vscsihba.configfs.probe import CHECKS, Check, prepare
from vscsihba.configfs.users import openers_of, users_of, users_of_lun

__all__ = [
    "CHECKS",
    "Backstore",
    "BackstoreSpec",
    "Check",
    "Hba",
    "Lun",
    "LunDevice",
    "Observed",
    "Other",
    "backstore_name",
    "clear_hba",
    "complete_where_answered",
    "create_backstore",
    "create_hba",
    "default_queue_depth",
    "delete_backstore",
    "delete_hba",
    "find_backstore",
    "find_lun",
    "free_kept_buf",
    "id_of",
    "link_lun",
    "links_of",
    "node_timeout",
    "observe",
    "openers_of",
    "others",
    "prepare",
    "reread_partitions",
    "rescan",
    "reset_ring",
    "resize_backstore",
    "set_attribute",
    "set_block",
    "set_command_timeout",
    "set_queue_depth",
    "unlink_lun",
    "users_of",
    "users_of_lun",
    "wait_for_generic",
    "wait_for_lun",
    "wait_for_uio",
    "wwn_of",
]
