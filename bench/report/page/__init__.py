"""What the HTML page shows, computed apart from how it is written."""
