"""The service that serves the disks of a document: its control socket, its changes, its engines."""
