"""Tools that make packages, manual pages and the documentation site of this tree; none is installed."""
