"""rbd: an image of a Ceph cluster as a disk, through librbd.

`handler` has the verbs; the other modules are its parts. Only `library` imports python3-rbd and
python3-rados, when an image is opened.
"""
