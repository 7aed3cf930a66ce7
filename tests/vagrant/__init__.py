"""Tests of the VM runner that need no VM."""
