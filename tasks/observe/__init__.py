"""The view of a run for a person or a machine: log lines, metrics, artifacts, and the final state in Prefect.

Guarantee: nothing here ends a run.
"""
