"""The kernel's TCMU ABI: rings, data areas and uio devices; nothing of SCSI."""
