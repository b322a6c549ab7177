"""Regression checks against a baseline."""
