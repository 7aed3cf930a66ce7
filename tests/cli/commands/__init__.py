"""Tests of vscsihba.cli.command_table."""
