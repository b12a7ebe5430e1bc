"""Knowledge sources, which return snippets for a query."""
