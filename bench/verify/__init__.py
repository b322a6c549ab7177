"""Verification of claims without any attack's code."""
