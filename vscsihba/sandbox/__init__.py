"""The sandbox: a real Linux kernel with virtual SCSI disks, as an ordinary process of an ordinary user.

User-Mode Linux is Linux built as a program. Its root is this machine's root below an overlay, so that writes
stay in its memory; a command runs in it as root. It needs no root on this machine, no KVM and no kernel
module.

    launcher (session.py)  --- frames over a socket --->  agent.py (pid 1 in the sandbox)
        |                                                    |
    janitor.py  ->  linux.uml (guest/init.sh)             COMMAND

The launcher runs in its caller's thread, the janitor and the kernel are processes in a session of their own,
and ``agent.py`` and ``guest/`` run inside. Knows nothing of disks: only the command and the caller's
preparation steps use them.
"""

from vscsihba.sandbox.plan import Plan, Preparation
from vscsihba.sandbox.session import Report, run_plan

__all__ = ["Plan", "Preparation", "Report", "run_plan"]
