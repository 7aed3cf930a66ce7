"""Tests of vscsihba.control."""
