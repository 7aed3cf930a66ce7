"""sg: another SCSI device behind a LUN of ours: every command is passed on to it.

`handler` takes whole CDBs, on the threads of the LUN; the other modules find the device, and send one
command.
"""
