"""Accuracy under every threshold, from stored logits."""
