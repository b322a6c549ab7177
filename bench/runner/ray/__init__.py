"""Execution of a plan on a Ray cluster."""
