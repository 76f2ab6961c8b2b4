"""Reads the outputs of recorded runs back and compares them with the source.

It shares no code with the sorter's stages. A plan says what to read, from the ledger alone; the other modules read,
digest, spill and compare.
"""
