"""Model files on this disk: names, downloads, checks and conversion."""
