"""Lookahead: several tokens a forward pass, guessed from a trie of what was read and written, with the same outputs."""
