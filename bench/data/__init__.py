"""Datasets: cards, fixed splits, readers for the formats people have, and checked downloads."""
