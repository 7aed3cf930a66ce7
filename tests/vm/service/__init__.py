"""Tests of the service, its commands and its shell, and of the pytest plugin, on a real kernel.

They start many processes, which takes an emulated machine long: hence one service for a file's tests.
"""
