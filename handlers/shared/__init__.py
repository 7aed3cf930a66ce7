"""Parts that several handlers use: durable files, superblocks, locks, thread pools, system calls.

None of them is a handler, and none of them knows one. They run on the thread of their caller, except for
`abandonable_pool`, which has threads of its own.
"""
