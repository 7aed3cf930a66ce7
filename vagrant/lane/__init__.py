"""The Vagrant lane: real machines made by `vagrant up`, in namespaces of their own, for CI.

Knows Vagrant's box and machines by name, and namespaces. Does not know what the tests test.
"""
