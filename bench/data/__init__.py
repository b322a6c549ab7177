"""Datasets: cards, fixed splits, readers for common formats, and checked downloads."""
