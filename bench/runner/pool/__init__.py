"""Runs the cells of an evaluation in several processes of one machine."""
