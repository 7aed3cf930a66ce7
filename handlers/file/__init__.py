"""file: a raw image or a block device as a disk.

`handler` has the verbs; every other module here is one part of it, such as opening a path, direct I/O or
making a new file. Verbs run on the threads of the LUN; `inline` has those that also run on the thread
that serves the ring.
"""
