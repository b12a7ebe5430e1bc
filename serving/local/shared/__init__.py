"""Workers on one cache: every key and value is stored once, and each worker reads it where its own view has it."""
