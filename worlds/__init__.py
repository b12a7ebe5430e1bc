"""What the tools of runs change, where a run may try changes in a copy."""
