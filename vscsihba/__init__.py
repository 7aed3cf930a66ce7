"""Virtual SCSI disks on Linux, served from user space."""

__version__ = "0.1.0"
