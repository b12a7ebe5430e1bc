"""The native API: runs, events, answers and verifications."""
