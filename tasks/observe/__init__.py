"""What a person or a machine sees of a run: log lines, metrics, artifacts, and the final state in Prefect.

Guarantee: nothing here ends a run.
"""
