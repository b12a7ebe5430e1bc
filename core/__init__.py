"""The nouns that everything speaks; no engine, no network."""
