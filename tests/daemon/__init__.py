"""Tests of vscsihba.daemon."""
