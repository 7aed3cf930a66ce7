"""cow: a disk whose changes go to an overlay, while the base stays as it is.

`handler` has the verbs, `overlay` and `overlay_file` the overlay, which `snapshot` uses too, and `admin`
the operations on an overlay that no disk uses. Verbs run on the threads of the LUN; `inline` has those
that also run on the thread that serves the ring.
"""
