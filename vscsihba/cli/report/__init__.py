"""The parts of a bug report, and the removal of secrets from them."""
