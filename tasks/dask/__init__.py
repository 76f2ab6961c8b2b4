"""Dump and sort on workers of Dask, for jobs that outgrow one process or one machine.

Dask is an extra, and slow to import: modules here import it where they use it.
"""
