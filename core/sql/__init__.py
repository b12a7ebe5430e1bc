"""What the SQL run stores share: operations as functions of a connection, and the thread that groups them."""
