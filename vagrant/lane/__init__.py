"""The Vagrant lane: virtual machines started by `vagrant up`, each in its own namespaces, for CI.

Knows Vagrant's box, the names of its machines, and namespaces; nothing of the tests.
"""
