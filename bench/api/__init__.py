"""The functions behind the public API and the commands; ``exitbench`` itself exports the public ones."""
