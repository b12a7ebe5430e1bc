"""The viewer: one renderer (`web/`, built into `assets/`) for the live pages at `/ui` and for self-contained pages."""
