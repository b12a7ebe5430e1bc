"""Read the rows of datasets into items."""
