"""Mutation testing of the critical modules: does a test notice when a line is wrong?

`mutants` makes small faults from a module's source, `modules` says which tests are nearest to it,
`runner` runs them with one fault at a time. Run it with ``./dev mutate``.
"""
