"""The user's settings: the job, the stream, the connection, read from flags, environment and files."""
