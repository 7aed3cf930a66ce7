"""The quick VM runner: any command inside a guest whose root is this machine's root, by QEMU and virtme-ng.

Knows kernels, QEMU and virtme-ng. Does not know what it runs: neither the tests nor vscsihba.
"""
