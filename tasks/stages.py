"""All stages by their names, for the workers that are told a name."""

from collections.abc import Mapping
from typing import Any, Final

from tasks.dump import DUMP
from tasks.sort import SORT
from tasks.sort_part import SORT_PART
from tasks.stage import Stage

STAGES: Final[Mapping[str, Stage[Any, Any]]] = {stage.name: stage for stage in (DUMP, SORT, SORT_PART)}
