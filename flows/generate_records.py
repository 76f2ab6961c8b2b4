"""The flow `generate-records`: fills a topic with the sample data."""

from functools import partial
from typing import Annotated, Any, Literal

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from pydantic import Field

from tasks.generate import MAX_SEED, generate_records as generate, make_block
from tasks.observe.flow_states import observe_run
from tasks.observe.logs import get_logger
from tasks.run_context import RunContext
from tasks.settings.connection import Connection, ProfileName, current_connection, use_profile
from tasks.settings.patterns import TopicName


# No retries: the records that were sent stay in the topic, and a retry would append them a second time.
@task(task_run_name="generate {topic}", cache_policy=NO_CACHE, persist_result=False)
def fill_topic(connection: Connection, topic: str, records: int, seed: int, partitions: int, fmt: str) -> int:
    """Append the records; return how many were delivered."""
    return generate(connection, topic, records, seed, partitions, make=partial(make_block, fmt=fmt))


@flow(name="generate-records", flow_run_name="{topic} · {records:,} records, seed {seed}", persist_result=False)
def generate_records(
    topic: TopicName = "source",
    records: Annotated[int, Field(ge=0)] = 1_000_000,
    seed: Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": MAX_SEED})] = 1,
    partitions: Annotated[int, Field(ge=1, le=10_000)] = 4,
    connection: ProfileName = None,
    format: Literal["csv", "json", "avro", "protobuf"] = "csv",  # noqa: A002  # the job's parameter has this name
) -> int:
    """Append sample records to a topic.

    Args:
        topic: Topic to fill; created if it is absent.
        records: Number of records to append.
        seed: The same seed gives the same records.
        partitions: Partitions of a topic that is created.
        connection: Name of the connection to Kafka; empty: the connection of the process that runs the flow.
        format: Format of the values, the same people in each.
    """

    def work(_: RunContext) -> State[Any]:
        with use_profile(connection):
            delivered = fill_topic(current_connection(), topic, records, seed, partitions, format)
        get_logger().info("records generated", topic=topic, records=delivered, seed=seed)
        return Completed(message=f"{delivered:,} records in {topic}", data=delivered)

    delivered: int = observe_run("generation", topic, work)
    return delivered


if __name__ == "__main__":
    generate_records()
