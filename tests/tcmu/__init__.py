"""Tests of the kernel ABI: every rule of docs/ring-rules.md, against the kernel's half in this process."""
