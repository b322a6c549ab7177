"""Timings of the suite beside those of the loops it replaces, on one machine, to the same robust accuracy."""
