"""A simulated machine under the real code of the handlers: one seed, one history, every fault.

`scheduler` owns threads and time, `storage` what a power cut leaves, `calls` the system calls,
`faults` which of them fail, `world` puts them together; `history` judges what a disk returns.
`layers` describes the disks under test, `exhaustive` and `histories` are the lanes.
Run it with ``./dev sim``.
"""
