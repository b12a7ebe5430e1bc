"""Claims that a program can check: arithmetic, dates, units."""
