"""The parts of a stream besides the stages of a run: intake, end, statistics and their display."""
