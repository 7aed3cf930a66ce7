"""Engines: processes that serve the rings of an HBA's logical units.

`serving` runs on the pump's thread, `owning` says which engine serves which LUN. On top: an engine as a
process, the verbs of its control socket, and asking it from another process.
"""
