"""libiscsi's SCSI conformance tests against disks that vscsitarget serves on a real kernel."""
