"""A load whose broker stops answering."""

from pathlib import Path

import pytest

from tasks import fill
from tasks.fill import Filler
from tasks.load import LoadFailedError, load_files
from tasks.loading import files
from tasks.loading.layout import LoadSettings
from tasks.loading.rows import open_files
from tests.cluster import Cluster
from tests.faults import proxy as kafka
from tests.faults.proxy import Proxy

LINES = [b"line %d" % i for i in range(10_000)]


@pytest.mark.slow
def test_only_acknowledged_lines_count(
    cluster: Cluster, through: Cluster, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Kafka stops answering, a load counts the lines that were acknowledged, though the topic has more by then."""
    monkeypatch.setattr(files, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(fill, "ANSWER_SECONDS", 3.0)
    send = Filler.send

    def lose_answers(filler: Filler, block: object) -> None:
        if filler.blocks == 4:
            filler.flush()
            proxy.lose_replies(kafka.PRODUCE)
        send(filler, block)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(Filler, "send", lose_answers)
    path, topic = tmp_path / "a.txt", cluster.make_topic(3)
    path.write_bytes(b"\n".join(LINES))
    settings = LoadSettings((str(path),), topic)
    layout = settings.check()
    with pytest.raises(LoadFailedError) as raised:
        load_files(through.connection, settings, layout, open_files(settings, layout))
    assert proxy.lost >= 1
    told = int(str(raised.value).partition("stopped after ")[2].partition(" lines")[0].replace(",", ""))
    assert f"topic {topic} has {told:,} records of this load and maybe some of the {10_000 - told:,} behind" in str(
        raised.value
    )
    assert 1000 < told < len(cluster.read(topic))
    assert set(LINES[:told]) <= {record.value for record in cluster.read(topic)}
