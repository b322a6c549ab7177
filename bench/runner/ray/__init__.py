"""The same plan on a Ray cluster."""
