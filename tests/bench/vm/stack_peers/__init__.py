"""Stacks of handlers beside the programs and kernel drivers that do the same job, in one boot.

One file a job, with its `GROUPS`: add a peer to the group of its file, and the guest measures it. A peer
whose program or module is missing is reported as missing.
"""
