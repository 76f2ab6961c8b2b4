"""What a stream is made of, besides the stages of a run: intake, end, statistics and their display."""
