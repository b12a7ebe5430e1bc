"""Output in the terminal: consoles, tables, live views, search trees."""
