"""Tests of vscsihba.hba: an HBA inside this process, its caller on a thread or in the test itself."""
