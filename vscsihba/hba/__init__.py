"""An HBA in a few lines of Python: LUNs that the caller answers, and LUNs that a handler serves.

    with VirtualHba(0) as hba:
        hba.add_lun(0, size="64MiB")                                      # raw: its tasks come to us
        hba.add_lun(1, handler={"handler": "file", "path": "a.img"})      # served by an engine's pump
        for task in hba.tasks():
            task.answer_as()                                              # or look, and task.complete(...)

The verbs are the original's: register (enter the context), get (`next_task`, `tasks`),
receive (`Task.buffer`) and complete (`Task.complete`). It knows nothing of programs or of C.
"""

from vscsihba.hba.adapter import VirtualHba
from vscsihba.hba.kernel_port import KernelPort
from vscsihba.hba.loopback_port import LoopbackPort
from vscsihba.hba.lun import Lun
from vscsihba.hba.port import Port
from vscsihba.hba.task import Management, Task

__all__ = ["KernelPort", "LoopbackPort", "Lun", "Management", "Port", "Task", "VirtualHba"]
