"""The sample data in each format, read by other code: the same people."""

import json

from tasks.people.make import make_people, write_csv, write_json

PEOPLE = make_people(3, 0, 5000)
ROWS = [row.decode().split(",") for row in write_csv(PEOPLE).to_pylist()]


def test_json() -> None:
    """The same people as in CSV, with a number as id."""
    read = [json.loads(value) for value in write_json(PEOPLE).to_pylist()]
    assert [[str(person["id"]), person["name"], person["address"], person["continent"]] for person in read] == ROWS
    assert all(list(person) == ["id", "name", "address", "continent"] for person in read)
