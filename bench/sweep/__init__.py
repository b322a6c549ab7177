"""Threshold sweeps: a multi-exit network as a curve of cost against accuracy, derived from stored logits alone."""
