"""The cost of a command on a stack of handlers, natively, against the bare calls that it cannot do without.

One file a stack: add a row to `STACKS` of that file, and `measure` runs it. Knows no kernel and no other
program.
"""
