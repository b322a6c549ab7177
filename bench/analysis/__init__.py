"""Questions asked of stored results."""
