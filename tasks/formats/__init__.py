"""Record formats: from records to the key columns that sorts compare. One file a format, behind `RecordFormat`."""
