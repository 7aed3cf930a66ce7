"""The VM runner: any command in a guest whose root is this machine's root, with QEMU and virtme-ng.

Knows kernels, QEMU and virtme-ng; neither the tests nor vscsihba.
"""
