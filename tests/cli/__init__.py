"""Tests of vscsihba.cli."""
