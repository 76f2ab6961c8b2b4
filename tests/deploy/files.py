"""The files that make the stack, read as data."""

import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RULES: dict[str, Any] = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "kafka-sort.json").read_text())
