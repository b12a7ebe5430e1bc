"""The native API: runs, their events and answers, complete."""
