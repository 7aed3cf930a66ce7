"""Completion scripts: one file a shell, made from the syntax of the commands."""
