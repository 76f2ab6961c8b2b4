"""The sample data, in each format."""
