"""The checks of ``vscsihba doctor``: one file an area. None of them changes anything."""
