"""Layouts: the ways from a snapshot to sorted rows, each a list of stages."""
