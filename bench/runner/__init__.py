"""Planning and execution of evaluations."""
