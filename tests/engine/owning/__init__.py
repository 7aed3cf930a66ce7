"""Tests of vscsihba.engine.owning."""
