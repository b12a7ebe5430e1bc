"""Sources of tools that runs execute."""
