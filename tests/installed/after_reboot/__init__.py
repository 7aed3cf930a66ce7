"""Checks after such a machine was booted again, against the record that `tests/installed` left."""
