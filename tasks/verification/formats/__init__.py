"""Formats as verification reads them: from values, or from record keys, to the raw values of key columns."""
