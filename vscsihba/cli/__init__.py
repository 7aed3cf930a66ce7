"""The programs ``vscsihba`` and ``vscsitarget``, and what all commands share.

Each command is one file of `commands`; `doctor` and `completion` hold the parts of those two commands.
Everything here runs in the process of the person who typed the command.
"""
