"""Exit rules beyond thresholds on one exit, and the registry of all rules by their names on the command line."""
