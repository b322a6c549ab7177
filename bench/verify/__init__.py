"""Re-checking claims with no attack's code."""
