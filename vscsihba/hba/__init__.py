"""A virtual HBA in a few lines of Python: LUNs that your program answers, and LUNs that a handler serves.

    with VirtualHba(0) as hba:
        hba.add_lun(0, size="64MiB")                                      # raw: you get its tasks
        hba.add_lun(1, handler={"handler": "file", "path": "a.img"})      # served by an engine's pump
        for task in hba.tasks():
            task.answer_as()                                              # or task.complete(...)

The verbs are those of the original vscsihba: register (enter the context), get (`next_task`, `tasks`),
receive (`Task.buffer`) and complete (`Task.complete`). Knows nothing of programs or of C. LUNs of handlers
are served by a pump's thread; raw LUNs by the threads of the caller.
"""

from vscsihba.hba.adapter import VirtualHba
from vscsihba.hba.kernel_port import KernelPort
from vscsihba.hba.loopback_port import LoopbackPort
from vscsihba.hba.lun import Lun
from vscsihba.hba.port import Port
from vscsihba.hba.task import Management, Task

__all__ = ["KernelPort", "LoopbackPort", "Lun", "Management", "Port", "Task", "VirtualHba"]
