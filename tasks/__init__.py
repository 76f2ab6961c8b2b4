"""The stages of a run, in the order the data passes: snapshot, dump, sort, publish; `run` puts them in sequence.

The packages beside them are what the stages share, one for each subject: formats, sorting, targets, kafka, settings,
observe. docs/code.md has the map.
"""
