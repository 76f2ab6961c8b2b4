"""The benchmark's picture: time against records, all systems.

python -m bench.plot bench/out/compare.json docs/benchmark.png
"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

NAMES = {"kafka-sort": "kafka-sort", "pipe": "kcat | sort | kcat, once a key", "floor": "kcat alone, no sort"}
COLOURS = {"kafka-sort": "#0b6e4f", "pipe": "#c1440e", "floor": "#8a8a8a"}


def medians(measurements: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """System → records → median wall time, seconds."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for m in measurements:
        found[m["system"]][m["records"]].append(m["wall_seconds"])
    return {system: {n: statistics.median(v) for n, v in sorted(by.items())} for system, by in found.items()}


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    figure, axes = plt.subplots(figsize=(7, 4), dpi=110)
    for system, by in medians(json.loads(source.read_text())).items():
        if system in NAMES:
            axes.plot(by.keys(), by.values(), "o-", color=COLOURS[system], label=NAMES[system])
            last = max(by)
            axes.annotate(f" {by[last]:.0f} s", (last, by[last]), va="center")
    axes.set(xlabel="records", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda n, _: f"{n / 1e6:g}M")
    axes.set_title("One topic sorted by three keys, 2 cores, the broker on the same machine", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    axes.legend(frameon=False)
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)


if __name__ == "__main__":
    main()
