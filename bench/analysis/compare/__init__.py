"""Two evaluations side by side, sample by sample."""
