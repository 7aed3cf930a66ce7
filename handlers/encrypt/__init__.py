"""encrypt: a disk that is encrypted below, in a LUKS container that cryptsetup opens too.

`handler` has the verbs, which run on the threads of the LUN; `luks`, `luks1` and `luks2` the headers,
`crypto` the ciphers, and `admin` the operations on the keys of a container that no disk uses.
"""
