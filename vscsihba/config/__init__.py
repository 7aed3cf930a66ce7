"""The document that says which disks are wanted: its model, reading, writing, checking, comparing.

Knows handlers by their options, and nothing of the kernel, engines or the daemon.
"""
