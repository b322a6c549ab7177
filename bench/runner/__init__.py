"""How an evaluation is planned and executed."""
