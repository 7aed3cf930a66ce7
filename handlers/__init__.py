"""Handlers: what stores the bytes of a disk (sources) and what changes them on their way (filters).

`base` is the contract, `filter` the two ways to sit on top of another handler, `stack`
builds handlers from a document; every other module here is one handler.
"""
