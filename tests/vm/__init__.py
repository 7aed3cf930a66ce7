"""Tests that need a real kernel; ./dev test runs them in a VM."""
