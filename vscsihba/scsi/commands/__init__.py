"""Commands of every device type (SPC-5): one file a command family.

No function here relies on the unit being a disk: tape drives and changers have these commands
too. The functions run on the pump's thread, which serves the rings; they do no I/O themselves.
Knows nothing of `vscsihba.scsi.block` and `vscsihba.scsi.copy`.
"""
