"""Control sockets, on which one process of vscsihba sends requests to another.

Each line on the Unix stream socket is a JSON object, and each connection carries one request:

    -> {"verb": "resize", "arguments": {"backstore": "boot", "size": 21474836480}}
    <- {"progress": {"step": 1, "of": 2, "text": "grow boot to 20 GiB"}}        any number of times
    <- {"result": ...}  or  {"error": {"message": "...", "cure": "...", "exit_code": 1}}

After the result, some connections go on as a stream of bytes (`stream`).

Knows nothing of the meaning of a verb.
"""

from vscsihba.control.client import NotListeningError, call
from vscsihba.control.peer import Peer, root_only, root_or_group
from vscsihba.control.server import ControlServer, ProgressCallback
from vscsihba.control.stream import Channel, Incoming, Stream, open_stream

__all__ = [
    "Channel",
    "ControlServer",
    "Incoming",
    "NotListeningError",
    "Peer",
    "ProgressCallback",
    "Stream",
    "call",
    "open_stream",
    "root_only",
    "root_or_group",
]
