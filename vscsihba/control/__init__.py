"""Control sockets: how one process of ours asks another to do something.

One JSON object a line on a Unix stream socket, one request a connection:

    -> {"verb": "resize", "arguments": {"backstore": "boot", "size": 21474836480}}
    <- {"progress": {"step": 1, "of": 2, "text": "grow boot to 20 GiB"}}        any number of these
    <- {"result": ...}  or  {"error": {"message": "...", "cure": "...", "exit_code": 1}}

Knows nothing of what a verb does.
"""

from vscsihba.control.client import NobodyListensError, call
from vscsihba.control.peer import Peer, root_only, root_or_group
from vscsihba.control.server import ControlServer, Progress

__all__ = ["ControlServer", "NobodyListensError", "Peer", "Progress", "call", "root_only", "root_or_group"]
