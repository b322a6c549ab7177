"""RobustBench's leaderboard with a cost axis: published accuracies, multiply-accumulates counted here, and our own networks."""
