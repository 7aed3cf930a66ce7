"""Serving the rings of logical units: the pump, and the commands on their way through it.

Everything here runs on the pump's thread, one for each engine, and needs no locks. Exceptions, each said
where it is: the threads of `workers`, on which handlers may block, and the methods by which other threads
call into the pump (`call_queue.Mailbox.post`). Knows nothing of other engines, nor of configfs.
"""
