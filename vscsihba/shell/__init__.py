"""The shell: disks as a tree, as in targetcli. Runs in the process of ``vscsihba shell``."""
