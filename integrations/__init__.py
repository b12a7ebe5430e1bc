"""`reason` inside other frameworks."""
