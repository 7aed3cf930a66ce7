"""cache: keeps blocks of a slow disk in a quicker file.

`handler` has the verbs, which run on the threads of the LUN; `lines` is the map of what the cache holds.
"""
