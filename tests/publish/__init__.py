"""Tests of publish/: packages, manual pages, the site."""
