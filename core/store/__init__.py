"""The durable run store: its protocol, and its implementations over SQLite and Postgres."""
