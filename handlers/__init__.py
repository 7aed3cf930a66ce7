"""Handlers: sources, which store the bytes of a disk, and filters, which change them on their way.

`base` is the contract, `filter` and `fan` the ways to sit on top of other handlers, and `stack` builds
handlers from a document. A handler of one file lies beside them; one of several parts has a folder of its
name. Parts that several handlers use are in `shared`. Verbs run on the threads of a LUN, inline verbs on
the thread that serves its ring.
"""
