"""The flow `generate-records`: fills a topic with the sample data."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from tasks.generate import generate_records as generate
from tasks.observe.context import run_context
from tasks.observe.logs import configure_logging, get_logger
from tasks.observe.report import artifact_key, report_progress
from tasks.settings.connection import Connection, current_connection


# Not tried again by itself: what was sent stays in the topic, and would be there twice.
@task(task_run_name="generate {topic}", cache_policy=NO_CACHE, persist_result=False)
def fill_topic(connection: Connection, topic: str, records: int, seed: int, partitions: int) -> int:
    """Append the records; how many were delivered."""
    return generate(connection, topic, records, seed, partitions)


@flow(name="generate-records", flow_run_name="{topic} · {records} records, seed {seed}", persist_result=False)
def generate_records(topic: str = "source", records: int = 1_000_000, seed: int = 1, partitions: int = 4) -> int:
    """Append sample records to a topic, which is made with `partitions` partitions if absent."""
    configure_logging()
    connection = current_connection()
    with run_context() as context, report_progress(context.progress, artifact_key("generate", topic)):
        delivered = fill_topic(connection, topic, records, seed, partitions)
    get_logger().info("records generated", topic=topic, records=delivered, seed=seed)
    return delivered


if __name__ == "__main__":
    generate_records()
