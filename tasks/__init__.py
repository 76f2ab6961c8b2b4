"""The stages of a run, in the order the data passes: snapshot, dump, sort, publish; `run` puts them in sequence.

What they share lies beside them, a package a subject: formats, sorting, targets, kafka, settings, observe. docs/code.md
has the map.
"""
