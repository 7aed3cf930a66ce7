"""Tests of the pytest plugin that need no kernel; tests/vm/service/test_pytest_plugin.py has the others."""
