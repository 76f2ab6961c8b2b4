"""What the user says: the job, the stream, the connection, and how they are read from flags, environment and files."""
