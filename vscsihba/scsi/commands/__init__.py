"""Commands of every device type (SPC-5): one file a command family.

Nothing here may rely on the unit being a disk: a tape drive or a changer answers these commands as
well. The functions run on the pump's thread, which serves the rings; they do no I/O themselves.
Knows nothing of `vscsihba.scsi.block` and `vscsihba.scsi.copy`.
"""
