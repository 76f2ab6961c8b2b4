"""From files to records: how a file is opened, cut into lines or rows, and where a row's key is."""
