"""Runs made by several complete loops, of which one is chosen."""
