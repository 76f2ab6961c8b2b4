"""Settings of a stream: their sources, and their refusals."""

from pathlib import Path

import pytest

from kafka_sort.main import cli
from tasks.errors import SettingsError
from tasks.settings.job import load_job
from tasks.settings.streaming import Streaming, check_streamable, load_streaming

FILE = """
source-topic = "orders"

[stream]
batch-size = 10
max-latency = 0.5
"""


def test_flags_then_environment_then_file(tmp_path: Path) -> None:
    """One job file serves streams and batch runs, which ignore the stream's table."""
    file = tmp_path / "job.toml"
    file.write_text(FILE)
    environment = {"KAFKA_SORT_MAX_LATENCY": "2", "KAFKA_SORT_SOURCE_TOPIC": "other"}
    streaming = load_streaming({"standby": True}, environment, file)
    assert (streaming.batch_size, streaming.max_latency, streaming.standby) == (10, 2.0, True)
    assert load_job({}, {}, file).source_topic == "orders"
    assert load_streaming({}, {}).batch_size == 100_000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"drain": "wait"}, "drain"),
        ({"max_bytes": "much"}, "'much' is not a size"),
        ({"max_bytes": "0"}, "no size of a batch"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_runtime": float("inf")}, "max_runtime"),
    ],
)
def test_wrong_settings_are_named(flags: dict[str, object], message: str) -> None:
    """They are named in one line, with the exit status of wrong settings."""
    with pytest.raises(SettingsError, match=message) as refused:
        load_streaming(flags, {})
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_stream_table_that_is_none(tmp_path: Path) -> None:
    """A value in place of the table is reported as such."""
    file = tmp_path / "job.toml"
    file.write_text('stream = "fast"')
    with pytest.raises(SettingsError, match=r"write \[stream\] as a table"):
        load_streaming({}, {}, file)


@pytest.mark.parametrize("word", ["batch-size", "chunk-size"])
def test_the_former_name_of_the_batch_size_is_taken(word: str, tmp_path: Path) -> None:
    """The former name goes on in files, variables, flags and parameters."""
    file = tmp_path / "job.toml"
    file.write_text(f"[stream]\n{word} = 10")
    assert load_streaming({}, {}, file).batch_size == 10
    assert load_streaming({}, {f"KAFKA_SORT_{word.upper().replace('-', '_')}": "11"}).batch_size == 11
    assert Streaming.model_validate({word.replace("-", "_"): 12}).batch_size == 12
    (option,) = (o for o in cli.commands["stream"].params if o.name == "batch_size")
    assert f"--{word}" in option.opts


def test_a_stream_has_no_end_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--end now` is refused before any work, since it would end a stream before it begins; a time is an end."""
    check_streamable(load_job({"end": "2026-02-01"}, {}))
    monkeypatch.setattr("kafka_sort.main._start", lambda *_: None)
    with pytest.raises(SettingsError, match="--end now is for kafka-sort sort"):
        cli(["stream", "--end", "now"], standalone_mode=False)


def test_a_stream_only_appends(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--mode replace` is refused before any work: a stream publishes batch after batch."""
    monkeypatch.setattr("kafka_sort.main._start", lambda *_: None)
    with pytest.raises(SettingsError, match="--mode replace is for kafka-sort sort"):
        cli(["stream", "--mode", "replace"], standalone_mode=False)
