"""Knowledge sources: what a model is given snippets from, behind one protocol."""
