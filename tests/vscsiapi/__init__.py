"""Tests of vscsihba.vscsiapi: an HBA inside this process, driven by the four calls."""
