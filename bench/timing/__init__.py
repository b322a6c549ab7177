"""Timing of networks."""
