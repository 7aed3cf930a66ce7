"""Completion affinity: the processor on which the target core completes the commands of an HBA.

The setting belongs to the whole tcm_loop target: ``param/cmd_completion_affinity``
(target_core_fabric_configfs.c; older kernels have none). target_complete_cmd() queues the rest of a
command on the processor that sent it, or on the one that wrote its completion to the ring.
"""

from typing import Final

from vscsihba.configfs import hbas, paths

_SENDER: Final = "-1"
"""SE_COMPL_AFFINITY_CPUID."""
_CURRENT: Final = "-2"
"""SE_COMPL_AFFINITY_CURR_CPU."""


def set_completion_affinity(hba_id: int, on_server: bool) -> None:  # noqa: FBT001 - neither choice is the normal one
    """Complete commands on the processor of the ring's server (True), or on their senders' processors.

    Raises:
        HostError: There is no such HBA, or the kernel has no such choice.
    """
    setting = hbas.target_of(hba_id) / "param/cmd_completion_affinity"
    paths.write(setting, _CURRENT if on_server else _SENDER)
