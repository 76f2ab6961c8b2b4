"""A job as a person writes it: what is taken, and refusals that say what, where it was given, and how to write it."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import SettingsError
from tasks.settings.job import Job, load_job
from tasks.settings.moments import epoch_millis, read_moment
from tasks.settings.streaming import load_streaming


def refusal(flags: dict[str, Any], environment: dict[str, str] | None = None, file: Path | None = None) -> str:
    with pytest.raises(SettingsError) as raised:
        load_job(flags, environment or {}, file)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("\t", "\t"),
        (r"\t", "\t"),
        ("tab", "\t"),
        ("pipe", "|"),
        ("semicolon", ";"),
        ("comma", ","),
        ("space", " "),
        (r"\x1f", "\x1f"),
        (r"\x7C", "|"),
    ],
)
def test_a_delimiter_may_be_named(text: str, delimiter: str, tmp_path: Path) -> None:
    """A flag, the environment, a file and Prefect's form take a name; the job has the character, as ledgers do."""
    file = tmp_path / "job.toml"
    file.write_text(f"delimiter = '{text}'\n")
    jobs = (load_job({"delimiter": text}, {}), load_job({}, {"KAFKA_SORT_DELIMITER": text}), load_job({}, {}, file))
    assert {job.delimiter for job in jobs} == {delimiter}
    schema = Job.model_json_schema()["properties"]["delimiter"]
    assert re.search(schema["pattern"], text)
    assert not {"minLength", "maxLength"} & schema.keys()


@pytest.mark.parametrize("text", ["", "::", '"', r"\x22", r"\x0a", r"\xff", "Tab", r"\n", "§"])
def test_what_is_no_delimiter(text: str) -> None:
    """An unknown word is refused, and a character that cannot divide rows."""
    assert "delimiter (--delimiter): " in refusal({"delimiter": text})


@pytest.mark.parametrize(
    ("sort", "hint"),
    [
        ("id desc", "write id:desc"),
        ("id DESC=by-id", "write id:desc"),
        ("id asc", "write id"),
        ("-id", "write id:desc"),
        ("+id", "write id"),
        ("id:DESC", "write id:desc"),
        ("id:descending=by-id", "write id:desc"),
        ("name,id desc=by-both", "write id:desc"),
        ("id name", "write id,name"),
        ("id;name=x", "write id,name"),
        ("contintent", "did you mean continent?"),
        ("ID", "did you mean id?"),
        ("id:by-id", "write COLUMN[:TYPE][:asc|:desc][:nulls-first|:nulls-last][,COLUMN…][=TOPIC]"),
    ],
)
def test_a_sort_that_is_written_otherwise(sort: str, hint: str) -> None:
    """Other tools' notations are refused with ours; the column is checked before a topic's name that is made of it."""
    line = refusal({"sorts": [sort]})
    assert line.startswith("sorts (--sort): sort ")
    assert hint in line
    assert "topic name" not in line


def test_a_column_may_hold_what_looks_like_a_direction() -> None:
    """A name that the columns have is taken as it is."""
    job = load_job({"columns": "id desc,-id", "sorts": ["id desc=a", "-id:desc = b"]}, {})
    assert [str(sort) for sort in job.sort_list] == ["id desc=a", "-id:desc=b"]


def test_a_flags_word_is_taken_in_a_file(tmp_path: Path) -> None:
    """A file takes `sort`, the flag's word, in place of `sorts`, but not both. So does the environment."""
    file = tmp_path / "job.toml"
    file.write_text('sort = ["name"]\n')
    assert load_job({}, {}, file).sorts == ["name"]
    assert load_job({}, {"KAFKA_SORT_SORT": "id"}, file).sorts == ["id"]
    file.write_text('sort = ["name"]\nsorts = ["id"]\n')
    assert refusal({}, {}, file).startswith(f"job file {file}: sorts is given twice")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('column = "a"', "there is no setting 'column'; did you mean columns?"),
        ('delimeter = ","', "did you mean delimiter?"),
        ('source = "a"', "did you mean source_topic?"),
        ("colour = 1", "there is no setting 'colour'"),
        ('sorts = "id"', 'should be a valid list, as ["…", "…"]'),
        ('columns = ["id"]', 'should be a valid string, as "…"'),
        ('source-topic = "a"\nsource_topic = "b"', "source-topic is given twice, also as source_topic"),
        ('sort = ["id desc"]', "write id:desc"),
        ("max-records = 0", "max_records"),
        ("max_records = 'few'", "max_records"),
        ('sorts = ["a.b=x.y", "id=x_y"]', "sorts"),
    ],
)
def test_a_file_is_named_in_what_it_is_wrong_about(tmp_path: Path, text: str, words: str) -> None:
    """The file is also named if its settings do not fit each other."""
    file = tmp_path / "job.toml"
    file.write_text(text)
    line = refusal({}, {}, file)
    assert f"job file {file}" in line
    assert words in line


def test_files_that_are_no_toml(tmp_path: Path) -> None:
    """What cannot be read is told without the words of Python; a byte order mark in front is fine."""
    assert refusal({}, {}, tmp_path / "absent").endswith(
        "absent: No such file or directory: name a file that can be read"
    )
    file = tmp_path / "job.toml"
    file.write_bytes('source-topic = "a"'.encode("utf-16"))
    assert refusal({}, {}, file).endswith("it is not UTF-8, as TOML is: save it anew")
    file.write_bytes(b'\xef\xbb\xbfsource-topic = "a"\r\n')
    assert load_job({}, {}, file).source_topic == "a"
    file.write_text("[stream]\nmax-latency = 1\nmax_latency = 2\n")
    with pytest.raises(SettingsError, match="max-latency is given twice"):
        load_streaming({}, {}, file)


def test_times_of_a_job_file(tmp_path: Path) -> None:
    """TOML has times of its own: they may be written without quotes, with a zone, without one (UTC), or as a day."""
    file = tmp_path / "job.toml"
    for text in ("2026-02-01T01:00:00+01:00", "2026-02-01T00:00:00", "2026-02-01", '"2026-02-01T00:00:00Z"'):
        file.write_text(f"start = {text}\nend = {text}\n")
        job = load_job({}, {}, file)
        assert job.start_moment == job.end_moment == datetime(2026, 2, 1, tzinfo=UTC), text
    for text in ("00:00:00", "2026", "true"):
        file.write_text(f"start = 2026-02-01\nend = {text}\n")
        assert "use now or a time as 2026-01-31T12:00:00Z" in refusal({}, {}, file)
    assert load_job({"end": "now"}, {"KAFKA_SORT_END": "2026-03-01"}).end_moment is None
    assert load_job({}, {"KAFKA_SORT_END": "2026-03-01"}).end == "2026-03-01"


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("2026-02-01T00:00:00.001Z", 1769904000001),
        # A record's time is a whole millisecond: the first one that is not before this is the next.
        ("2026-02-01T00:00:00.0001Z", 1769904000001),
        ("1969-12-31T23:59:59.999Z", 0),
        ("0001-01-01T00:00:00+14:00", 0),
    ],
)
def test_the_millisecond_of_a_time(text: str, millis: int) -> None:
    """Kafka is asked for whole milliseconds, never for a negative one, which means something else to it."""
    assert epoch_millis(read_moment(text)) == millis


def test_where_a_setting_was_given() -> None:
    """The place that won is named: the variable, or the flag that overrides it."""
    environment = {"KAFKA_SORT_MAX_RECORDS": "few", "KAFKA_SORT_SORTS": "id desc"}
    assert "max_records (KAFKA_SORT_MAX_RECORDS): " in refusal({"sorts": ["id"]}, environment)
    assert "max_records (--max-records): " in refusal({"max_records": 0, "sorts": ["id"]}, environment)
    assert refusal({"max_records": 1}, environment).startswith("sorts (KAFKA_SORT_SORTS): ")


def test_the_table_of_a_stream_is_named(tmp_path: Path) -> None:
    """It is named as the job's own settings are."""
    file = tmp_path / "job.toml"
    file.write_text("[stream]\nbatch-sizes = 1\n")
    with pytest.raises(SettingsError, match=r"job\.toml \[stream\]: there is no setting 'batch_sizes'; did you mean"):
        load_streaming({}, {}, file)
    file.write_text("[stream]\nmax-latency = 0\n")
    with pytest.raises(SettingsError, match=r"max_latency \(job file .*job\.toml \[stream\]\)"):
        load_streaming({}, {}, file)


LONG = "x" * 231
DERIVED = {
    "job name": ({"job_name": LONG + "x"}, ["job_name (--job-name)", "232 letters", "at most 231"]),
    "job name of 249": ({"job_name": "x" * 249}, ["at most 231", "--job-name"]),
    "source as the job's name": ({"source_topic": LONG + "x"}, ["at most 231", "--job-name"]),
    "dead letters": ({"source_topic": "x" * 240, "job_name": "j", "sorts": ["id=a"]}, ["--dead-letter-topic"]),
    "output": (
        {"source_topic": "x" * 249, "job_name": "j", "dead_letter_topic": "d"},
        ["output of sort 'id'", "COLUMNS=TOPIC"],
    ),
    "output of odd columns": ({"columns": "a b,ä", "sorts": ["a b"]}, ["'source-by-a b'", "COLUMNS=TOPIC"]),
    "output that is two dots": ({"sorts": ["id=.."]}, ["'..'", "a-z"]),
    "line break": ({"source_topic": "orders\n"}, ["a-z"]),
    "other digits": ({"memory_limit": "٢GB"}, ["not a size"]),
}


@pytest.mark.parametrize(("flags", "words"), DERIVED.values(), ids=DERIVED)
def test_a_derived_name_that_no_topic_can_have(flags: dict[str, Any], words: list[str]) -> None:
    """It is found before any work, with the way out."""
    line = refusal(flags)
    assert all(word in line for word in words), line


def test_the_longest_names() -> None:
    """A name that is one letter shorter makes a job."""
    job = load_job({"job_name": LONG, "source_topic": "x" * 249, "dead_letter_topic": "d", "sorts": ["id=a"]}, {})
    assert len(job.ledger) == 249


COLLIDING = {
    "output and source": {"source_topic": "a.b", "sorts": ["id=a_b"]},
    "two outputs": {"sorts": ["id=x.y", "name=x_y"]},
    "dead letters": {"sorts": ["id=x.y"], "dead_letter_topic": "x_y"},
    "ledger": {"job_name": "j", "sorts": ["id=kafka-sort_j_ledger"]},
}


@pytest.mark.parametrize("flags", COLLIDING.values(), ids=COLLIDING)
def test_names_that_collide(flags: dict[str, Any]) -> None:
    """`.` and `_` are the same to Kafka's metrics, so it refuses the second of two such topics."""
    assert "collides with topic" in refusal(flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            {"csv_header": True, "format": "none", "sorts": ["@key"]},
            "csv_header (--csv-header): it is for --format csv",
        ),
        ({"csv_quote": "none", "format": "none", "sorts": ["@key"]}, "csv_quote (--csv-quote): it is for --format csv"),
        ({"delimiter": ";", "format": "json", "sorts": ["a"]}, "delimiter (--delimiter): it is for --format csv"),
        (
            {"unknown_schema": "dead-letter", "format": "json", "sorts": ["a"]},
            "unknown_schema (--unknown-schema): is for --schema-registry",
        ),
        ({"columns": "id:int", "format": "none", "sorts": ["@key"]}, "columns (--columns): they are those of a value"),
        ({"csv_quote": "single"}, "csv_quote (--csv-quote)"),
        ({"csv_header": True, "sorts": ["id:integer"]}, "there is no type 'integer'"),
        ({"csv_header": True, "sorts": ["id:int"], "columns": "id:text"}, "'id' is given two types: int and text"),
    ],
)
def test_options_of_csv_that_do_not_fit(flags: dict[str, Any], words: str) -> None:
    """An option without effect, or against another, is refused by its own name."""
    assert words in refusal({"source_topic": "s", **flags})


@pytest.mark.parametrize(
    "sort",
    [
        "items[0].sku:text(de):desc:nulls-last=topic",
        ' "total, net" : decimal : desc : nulls-last = topic ',
        '"a=b""c:d".e:time(ms),"[0]":uuid:nulls-first,[0]:bool=topic',
        '@header."a:b, c": int : nulls-first=topic',
        "größe:text(DE_at):nulls-last",
    ],
)
def test_a_form_takes_what_a_flag_takes(sort: str) -> None:
    """The pattern that Prefect's server checks permits quoted names, paths, types and blanks."""
    fields = Job.model_json_schema()["properties"]
    columns = ",".join(key.written(None) for key in Job(source_topic="s", format="json", sorts=[sort]).sort_list[0].by)
    assert re.search(fields["sorts"]["items"]["pattern"], sort)
    assert re.search(fields["sorts"]["items"]["pattern"], columns)
    assert re.search(fields["columns"]["pattern"], ' "total, net" : decimal , größe: text(de),items[0].sku')


def test_sorts_in_a_variable() -> None:
    """Blanks divide them, but not within double quotes."""
    text = 'id  "total, net":decimal:desc=by-total "a "" b",id=c'
    job = load_job({"csv_header": True}, {"KAFKA_SORT_SORTS": text})
    assert job.sorts == ["id", '"total, net":decimal:desc=by-total', '"a "" b",id=c']
    assert "without its partner" in refusal({}, {"KAFKA_SORT_SORTS": 'id "a'})


def test_a_collation_in_capitals() -> None:
    """It is the same type, for a column and for the ledger."""
    job = load_job({"format": "json", "sorts": ["a:text(DE_at)"], "columns": "a:text(de_AT)"}, {})
    assert str(job.column_types["a"]) == "text(de_at)"


def test_a_header_line_has_the_names() -> None:
    """With a header line a sort may name any field; `--columns` gives types, and lists no row."""
    job = load_job({"source_topic": "s", "csv_header": True, "sorts": ["id,when=a"], "columns": "id:int,x:int"}, {})
    assert {name: str(kind) for name, kind in job.column_types.items()} == {"id": "int", "when": "text"}
    assert [key.name for key in job.key_columns] == ["id", "when"]
    named = load_job({"source_topic": "s", "csv_header": True, "sorts": ['"order id, old"']}, {})
    assert named.sort_list[0].topic == "s-by-order-id-old"
    assert "unknown column 'when'" in refusal({"source_topic": "s", "sorts": ["when"]})


@pytest.mark.parametrize("name", ["__consumer_offsets", "kafka-sort.other.ledger"])
def test_topics_that_are_not_written_to(name: str) -> None:
    """No output and no dead-letter topic has the name of a topic of Kafka's own, or of another job's ledger."""
    assert "has the name of" in refusal({"source_topic": "a", "sorts": [f"id={name}"]})
    assert "has the name of" in refusal({"source_topic": "a", "sorts": ["id"], "dead_letter_topic": name})


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"max_records": 10}, "--max-records"),
        ({"on_partition_failure": "skip"}, "--on-partition-failure"),
        ({"start": "latest"}, "--start"),
        ({"start": "group"}, "--start"),
    ],
)
def test_a_replacement_reads_all(flags: dict[str, Any], named: str) -> None:
    """What would leave records of the source out is refused together with `--mode replace`; a time as start is not."""
    told = refusal({"mode": "replace", **flags})
    assert named in told
    assert "--mode replace" in told
    assert load_job({"mode": "replace", "start": "2026-01-31T12:00:00Z"}, {}).replaces
