"""Reports of runs: one JSON, Markdown or HTML file."""
