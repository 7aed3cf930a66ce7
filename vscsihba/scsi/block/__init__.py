"""Commands of disks, T10's direct access block devices (SBC-4): one file a command family.

The functions run on the pump's thread, which serves the rings. They yield operations of
`vscsihba.block`, which the engine performs on a handler; they do no I/O themselves.
Another device type gets a folder beside this one.
"""
