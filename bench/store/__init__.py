"""What is kept of an evaluation: cells, run records, archives."""
