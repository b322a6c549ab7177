"""RobustBench's leaderboard with a cost axis: table, plot and terminal."""
