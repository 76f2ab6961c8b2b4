"""Inspection of a topic by a bounded sample: formats, columns, keys, and a job that sorts it. One file a subject."""
