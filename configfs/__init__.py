"""The kernel's objects of a virtual disk: backstores, HBAs and LUNs in configfs, and their device nodes.

Call the functions in this order; a ring must be served before a LUN is linked to it, until after the LUN
is unlinked:

    prepare()
    backstore = create_backstore(spec)      open and serve backstore.uio
    create_hba(id)
    link_lun(id, lun, backstore.name)       blocks while the kernel scans the LUN
    device = wait_for_lun(id, lun)
    ...
    unlink_lun(id, lun)                     blocks while dirty pages are written
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
from vscsihba.configfs.completion_affinity import set_completion_affinity
from vscsihba.configfs.devices import (
    LunDevice,
    links_of,
    node_timeout,
    wait_for_generic,
    wait_for_lun,
    wait_for_uio,
)
from vscsihba.configfs.dirty_pages import write_back
from vscsihba.configfs.foreign import ForeignObject, foreign_objects
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
from vscsihba.configfs.iscsi import change_target, find_target, portals_in_use
from vscsihba.configfs.iscsi_sessions import ending_sessions, logins_wait, refusals_of, sessions_of
from vscsihba.configfs.iscsi_spec import ACL_DEFAULTS, Acl, Chap, IscsiTarget, Refusals, Session
from vscsihba.configfs.leftovers import clear_hba
from vscsihba.configfs.model import BackstoreSpec
from vscsihba.configfs.names import backstore_name, config_of, id_of, place_of, wwn_of
from vscsihba.configfs.objects import Backstore, Hba, Lun, Observed
from vscsihba.configfs.observer import observe
from vscsihba.configfs.probe import CHECKS, Check, prepare, prepare_iscsi
from vscsihba.configfs.reservations import Reservation, reservation_of
from vscsihba.configfs.users import openers_of, users_of, users_of_lun

__all__ = [
    "ACL_DEFAULTS",
    "CHECKS",
    "Acl",
    "Backstore",
    "BackstoreSpec",
    "Chap",
    "Check",
    "ForeignObject",
    "Hba",
    "IscsiTarget",
    "Lun",
    "LunDevice",
    "Observed",
    "Refusals",
    "Reservation",
    "Session",
    "backstore_name",
    "change_target",
    "clear_hba",
    "config_of",
    "create_backstore",
    "create_hba",
    "default_queue_depth",
    "delete_backstore",
    "delete_hba",
    "ending_sessions",
    "find_backstore",
    "find_lun",
    "find_target",
    "foreign_objects",
    "free_kept_buf",
    "id_of",
    "link_lun",
    "links_of",
    "logins_wait",
    "node_timeout",
    "observe",
    "openers_of",
    "place_of",
    "portals_in_use",
    "prepare",
    "prepare_iscsi",
    "refusals_of",
    "reread_partitions",
    "rescan",
    "reservation_of",
    "reset_ring",
    "resize_backstore",
    "sessions_of",
    "set_attribute",
    "set_block",
    "set_command_timeout",
    "set_completion_affinity",
    "set_queue_depth",
    "unlink_lun",
    "users_of",
    "users_of_lun",
    "wait_for_generic",
    "wait_for_lun",
    "wait_for_uio",
    "write_back",
    "wwn_of",
]
