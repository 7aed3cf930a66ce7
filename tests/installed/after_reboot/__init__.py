"""Tests after a reboot of the machine, with the record that `tests/installed` has left."""
