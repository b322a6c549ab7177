"""The leaderboard: CSV, plots and terminal."""
