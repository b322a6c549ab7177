"""Networks that other packages publish, with their trained weights: RobustBench's zoo, and what pyautoattack ships."""
