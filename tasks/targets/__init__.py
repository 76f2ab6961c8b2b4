"""Kinds of output: one file for each, behind the protocol `Target`."""
