"""The HTML page: its content, and its writer."""
