"""Timings of the suite against hand-written loops, on one machine, to the same robust accuracy."""
