"""qemu: a disk image of any format that QEMU knows.

A private qemu-storage-daemon opens the image and exports it over NBD on a Unix socket that only this process
can reach. `handler` has the verbs, `daemon` starts such a process, `supervisor` keeps one alive,
`write_log` and `logged_verbs` bring back the acknowledged writes that a dead one has lost.
"""
