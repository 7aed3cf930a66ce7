"""Engines: processes that serve the rings of an HBA's logical units.

Below are `serving`, which runs on the pump's thread, and `owning`: which engine serves which LUN. The files
here are about an engine as a whole: the engine of an HBA, its process, the verbs of its control socket, and
their use by other processes. They run on the main thread and on those of the control socket.
"""
