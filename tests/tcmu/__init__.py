"""Tests of the kernel ABI: every ring rule, against the kernel's half in this process."""
