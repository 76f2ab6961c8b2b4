"""Folders of sorted files: one file for each place that they may be, behind the protocol `OutputFolder`."""
