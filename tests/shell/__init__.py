"""Tests of vscsihba.shell."""
