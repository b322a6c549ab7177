"""Training of the shipped weights, by recipes in one resumable loop."""
