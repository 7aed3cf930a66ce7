"""Tests of a machine on which provision.sh has installed vscsihba as a user would; run in CI."""
