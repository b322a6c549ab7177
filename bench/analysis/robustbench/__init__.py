"""RobustBench's leaderboard with a cost axis, and results in its fields."""
