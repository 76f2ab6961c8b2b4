"""Merges of runs: several runs of a job become one, by the stages of any run with outputs as the source."""
