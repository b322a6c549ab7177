"""Scores cells: verdicts, flags, ranking."""
