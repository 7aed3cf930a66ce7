"""Tests of a machine that vscsihba is installed on as at a user's: made by provision.sh, run in CI."""
