"""From cells to numbers: verdicts, flags, ranking."""
