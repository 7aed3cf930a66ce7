"""Manual pages: made of the parsers, of the tables of commands and handlers, and of the pages in docs/.

``python -m publish.manual FOLDER`` writes all of them; none is kept in the tree.
"""
