"""Benchmarks: ``./dev bench``. Ratios within one run, since absolute figures vary with the machine."""
