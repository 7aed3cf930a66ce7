"""Tests of vscsihba.hba: an HBA inside this process; the caller is a thread or the test itself."""
