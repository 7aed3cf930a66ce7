"""Tests to build on, for authors of handlers; they need the package `hypothesis`.

`disk_model` compares a handler with a bytearray through thousands of requests. It runs on pytest's thread.
"""
