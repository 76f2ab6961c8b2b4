"""The command line: flags to settings, results to tables, errors to one line and an exit status."""
