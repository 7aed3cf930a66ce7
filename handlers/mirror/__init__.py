"""mirror: the same data on several legs.

`handler` has the verbs, which run on the threads of the LUN and pass each leg its part on threads of
that leg. `sync` has a thread of its own, which makes the legs equal.
"""
