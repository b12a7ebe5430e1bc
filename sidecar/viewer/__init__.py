"""The viewer: one renderer (`web/`, built into `assets/`) for the live pages `/ui` and for pages that are one file."""
