"""snapshot: named snapshots of a disk while it is in use, as a chain of overlays.

`handler` has the verbs, which run on the threads of the LUN; `merge` runs beside them, on a thread of the
engine that carries out actions.
"""
