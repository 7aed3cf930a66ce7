"""A handler as a user writes one into a Python file."""

ONES = """
from vscsihba.block import Geometry
from vscsihba.handlers.base import Handler

class Ones(Handler):
    name = "ones"

    @property
    def geometry(self):
        return Geometry(1 << 20)

    def read(self, offset, views):
        for view in views:
            view[:] = b"\\x01" * len(view)
"""
