"""The document of the disks on a machine: its model, reading, writing, checking, comparing.

Knows the options of handlers, and nothing of the kernel, engines and the service.
"""
