"""Tests of vscsihba.engine.serving."""
