"""Training of the shipped weights: recipes as data, one resumable loop."""
