"""Engines: what serves the rings of an HBA's logical units."""
