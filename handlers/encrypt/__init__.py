"""encrypt: a disk that is encrypted below, in a LUKS container that cryptsetup opens too.

`handler` has the verbs. `payload` reads and writes whole sectors: small requests on the thread that serves
the ring, others on threads of the LUN. `sectors` encrypts and decrypts them by the ciphers of `xts`, which
come from `libcrypto`. `luks`, `luks1` and `luks2` have the headers, `crypto` the cryptography of keys, and
`admin` the operations on the keys of a container that no disk uses.
"""
