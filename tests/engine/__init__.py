"""Tests of vscsihba.engine."""
