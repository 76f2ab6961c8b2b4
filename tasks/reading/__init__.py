"""Reading of sorted topics: current runs of an output, look-ups by key, merges of runs, joins. One file a subject."""
