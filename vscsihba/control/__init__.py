"""Control sockets, on which one process of vscsihba sends requests to another.

Each line on the Unix stream socket is a JSON object, and each connection carries one request:

    -> {"verb": "resize", "arguments": {"backstore": "boot", "size": 21474836480}}
    <- {"progress": {"step": 1, "of": 2, "text": "grow boot to 20 GiB"}}        any number of times
    <- {"result": ...}  or  {"error": {"message": "...", "cure": "...", "exit_code": 1}}

Knows nothing of the meaning of a verb.
"""

from vscsihba.control.client import NotListeningError, call
from vscsihba.control.peer import Peer, root_only, root_or_group
from vscsihba.control.server import ControlServer, ProgressCallback

__all__ = [
    "ControlServer",
    "NotListeningError",
    "Peer",
    "ProgressCallback",
    "call",
    "root_only",
    "root_or_group",
]
