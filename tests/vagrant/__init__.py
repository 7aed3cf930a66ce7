"""Tests of the quick VM runner that need no VM."""
