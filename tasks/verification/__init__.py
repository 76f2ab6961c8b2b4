"""Reads the outputs of recorded runs back and compares them with the source. Shares no code with the sorter's stages.

A plan says what to read, from the ledger alone; the rest reads, digests, spills and compares.
"""
