"""The functions behind the package's public names and behind the commands; ``exitbench`` itself names those that are public."""
