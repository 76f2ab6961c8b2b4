"""The part of the settings' rules that a JSON schema can express, for Prefect's form and its server.

The validators of the models know the rest, and their messages explain it.
"""

import re
from typing import Annotated, Any

from pydantic import Field

from tasks.settings.sorts import DELIMITERS, TOPIC

TOPIC_PATTERN = f"^{TOPIC.pattern}$"
# The pattern is for the JSON schema only: callers of the flow get our validator's message.
TopicName = Annotated[str, Field(json_schema_extra={"pattern": TOPIC_PATTERN})]

_TYPE_PATTERN = r"\s*(int|decimal|float|bool|uuid|time(\((s|ms|us|ns)\))?|text(\([A-Za-z_8]+\))?)?\s*"
_NAME_PATTERN = r'("([^"]|"")*"|[^,:=])+'
_COLUMN_PATTERN = rf"{_NAME_PATTERN}(:{_TYPE_PATTERN})?"
COLUMNS_PATTERN = rf"^({_COLUMN_PATTERN}(,{_COLUMN_PATTERN})*)?$"
_TERM_PATTERN = rf"{_NAME_PATTERN}(:{_TYPE_PATTERN})?(:\s*(asc|desc)?\s*)?(:\s*nulls-(first|last)\s*)?"
SORT_PATTERN = rf"^{_TERM_PATTERN}(,{_TERM_PATTERN})*(=\s*([a-zA-Z0-9._-]{{1,249}}|parquet:.+)?\s*)?$"
DELIMITER_PATTERN = rf'^((?!["\r\n])[\x01-\x7f]|\\x(?!00)[0-7][0-9a-fA-F]|{"|".join(map(re.escape, DELIMITERS))})$'
PUBLISHERS_PATTERN = r"^(auto|[1-9]|[1-5]\d|6[0-4])$"
SCHEDULER_PATTERN = r"^(tcp|tls)://[^@/?#]+:\d{1,5}$"


def order_fields(schema: dict[str, Any]) -> None:
    """Set `position`, by which Prefect's form orders; without it the order is by name, required fields first."""
    for position, field in enumerate(schema["properties"].values()):
        field["position"] = position


def form(pattern: str, *, items: bool = False, **extra: str) -> dict[str, Any]:
    """Return what Prefect's server checks when a run is created. The models' validators explain the same rules."""
    return {**({"items": {"type": "string", "pattern": pattern}} if items else {"pattern": pattern}), **extra}
