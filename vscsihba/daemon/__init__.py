"""The service that keeps the wanted disks: what it is asked, and how it answers."""
