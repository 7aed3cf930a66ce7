"""Tests of vscsihba.capture."""
