"""Serving the rings of logical units: the pump, and the commands that pass through it.

All of it runs on the pump's thread, one in each engine, and needs no locks. There are two exceptions: the
threads of `workers`, on which handlers may block, and `call_queue`, by which other threads call the pump.
Knows nothing of other engines or of configfs.
"""
