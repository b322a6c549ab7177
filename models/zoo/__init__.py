"""Networks that other packages publish with trained weights: RobustBench's model zoo, and pyautoattack's example."""
