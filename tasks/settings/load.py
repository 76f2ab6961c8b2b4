"""Loads a model from flags, environment, file and defaults, in this order, and reports errors with their place.

Guarantee: an error is one line that names the setting and where it was given: the flag, the variable, or the file.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tasks.errors import SettingsError

ENVIRONMENT_PREFIX = "KAFKA_SORT_"
_SHOWN_LETTERS = 400
# Blanks divide the sorts of a variable, but not within double quotes.
_WORD = re.compile(r'(?:"(?:[^"]|"")*"|\S)+')
_LIKENESS = 0.5
# How values of a type are written in a job file, behind what Pydantic says of another one.
_WRITTEN = {"list_type": ', as ["…", "…"]', "string_type": ', as "…"'}

M = TypeVar("M", bound=BaseModel)


class FieldError(ValueError):
    """An error of a check over several fields: `field` is the one to change."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def flag_name(name: str, info: FieldInfo) -> str:
    """Return the flag of a field, such as `--sort` of `sorts`."""
    return f"--{_written(name, info)}".replace("_", "-")


def load_model(
    model: type[M], flags: Mapping[str, Any], environment: Mapping[str, str], file: Mapping[str, Any], where: str = ""
) -> M:
    """Load the model from flags, then environment, then a file's content, then defaults. `where` names the file."""
    values = _by_field(model, file, where)
    places = dict.fromkeys(values, f" ({where})")
    for name, info in model.model_fields.items():
        for variable in _variables(name, info):
            if text := environment.get(variable):
                values[name] = _WORD.findall(text) if name == "sorts" else text
                places[name] = f" ({variable})"
    values.update(flags)
    places.update(
        {name: f" ({flag_name(name, model.model_fields[name])})" for name in flags if name in model.model_fields}
    )
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_one_line(error, places)) from None


def read_job_file(file: Path | None) -> dict[str, Any]:
    """Return a job file's content; nothing without a file."""
    if file is None:
        return {}
    try:
        return underscored(tomllib.loads(file.read_text(encoding="utf-8-sig")), f"job file {file}")
    except OSError as error:
        raise SettingsError(f"job file {file}: {error.strerror or error}: name a file that can be read") from None
    except UnicodeDecodeError:
        raise SettingsError(f"job file {file}: it is not UTF-8, as TOML is: save it anew") from None
    except ValueError as error:
        raise SettingsError(f"job file {file}: {error}") from None


def underscored(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a table of a job file with the models' names. SettingsError if two of its names are one."""
    found = {name.replace("-", "_"): value for name, value in table.items()}
    if len(found) < len(table):
        twice = next(name for name in table if "-" in name and name.replace("-", "_") in table)
        raise SettingsError(
            f"{where}: {twice} is given twice, also as {twice.replace('-', '_')}: leave one of them out"
        )
    return found


def nearest(name: str, known: list[str]) -> str:
    """Return `; did you mean …?` for a name that is like a known one; else nothing."""
    near = difflib.get_close_matches(name.lower(), known, 1, _LIKENESS)
    return f"; did you mean {near[0]}?" if near else ""


def flag_names(name: str, info: FieldInfo) -> list[str]:
    """Return the flag, and the one that the field had in former versions."""
    return [f"--{word.replace('_', '-')}" for word in (_written(name, info), *_former(info))]


def _written(name: str, info: FieldInfo) -> str:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    return str(extra.get("flag", name))


def _former(info: FieldInfo) -> list[str]:
    """Return the names that the field had in former versions: its other validation aliases."""
    alias = info.validation_alias
    return [str(choice) for choice in alias.choices[1:]] if isinstance(alias, AliasChoices) else []


def _variables(name: str, info: FieldInfo) -> list[str]:
    """Return the variables of a field: its own overrides the flag's word and former names."""
    words = dict.fromkeys((*_former(info), _written(name, info), name))
    return [ENVIRONMENT_PREFIX + word.upper() for word in words]


def _by_field(model: type[BaseModel], file: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a file's content by the model's names; the flags' words are taken too. SettingsError for any other."""
    fields = {
        word: name for name, info in model.model_fields.items() for word in (_written(name, info), *_former(info))
    }
    values: dict[str, Any] = {}
    for word, value in file.items():
        name = fields.get(word, word)
        if name in values:
            raise SettingsError(f"{where}: {name} is given twice, also as {word}: leave one of them out")
        if name not in model.model_fields:
            raise SettingsError(f"{where}: there is no setting {word!r}{nearest(word, list(model.model_fields))}")
        values[name] = value
    return values


def _one_line(error: ValidationError, places: Mapping[str, str]) -> str:
    parts = []
    for item in error.errors():
        cause = item.get("ctx", {}).get("error")
        path = (cause.field,) if isinstance(cause, FieldError) else item["loc"]
        name = ".".join(map(str, path))
        message = item["msg"].removeprefix("Value error, ") + _WRITTEN.get(item["type"], "")
        message = message if len(message) <= _SHOWN_LETTERS else f"{message[:_SHOWN_LETTERS]}…"
        parts.append(f"{name}{places.get(str(path[0]), '')}: {message}" if path else message)
    return "; ".join(parts)
