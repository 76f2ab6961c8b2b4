"""The entry point of the command `kafka-sort`, under a name that no other package has.

Guarantee: the package `kafka_sort` is the one beside this file, also if a user's `kafka_sort.py` is on PYTHONPATH. The
package itself puts `flows` and `tasks` first.
"""

import os
import sys


def main() -> None:
    """Run the command. It watches for signals from the first line of `kafka_sort.process` on."""
    # pathlib would take 10 ms before signals are watched.
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path.insert(0, here)
    try:
        from kafka_sort.process import main as run
    finally:
        sys.path.remove(here)
    run()
