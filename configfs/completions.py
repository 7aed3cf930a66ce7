"""On whose processor the target core completes commands of an HBA.

A setting of the whole tcm_loop target, ``param/cmd_completion_affinity``
(target_core_fabric_configfs.c; older kernels have none): target_complete_cmd() queues the rest of
the work on the processor that sent the command, or on the one where the answer was shown.
"""

from typing import Final

from vscsihba.configfs import hbas, paths

_SENDER: Final = "-1"
"""SE_COMPL_AFFINITY_CPUID."""
_CURRENT: Final = "-2"
"""SE_COMPL_AFFINITY_CURR_CPU."""


def complete_where_answered(hba_id: int, answered: bool) -> None:  # noqa: FBT001 - the two places are alike
    """Have commands completed where their answer is shown (True), or on their senders' processors.

    Raises:
        HostError: There is no such HBA, or the kernel has no such choice.
    """
    setting = hbas.target_of(hba_id) / "param/cmd_completion_affinity"
    paths.write(setting, _CURRENT if answered else _SENDER)
