"""The permissions of a job on the cluster, asked for before any work, so that all missing ones are reported at once.

Kafka says which operations a principal has on a topic or a group (KIP-430). It does not say so for transactional ids,
or for topics that do not exist yet: those are reported one by one, when they are needed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from tasks.kafka.clients import GROUP_REQUEST_TIMEOUT, NotPermittedError, await_answer
from tasks.settings.job import Job

_REQUEST_TIMEOUT = 30.0
_HIDDEN = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})

Operations = frozenset[AclOperation]
Needs = Mapping[str, Operations]

_READ = frozenset({AclOperation.READ})
_SORT = frozenset({AclOperation.READ, AclOperation.DESCRIBE_CONFIGS})
_ALTER = frozenset({AclOperation.ALTER})
_WRITE = frozenset({AclOperation.WRITE, AclOperation.DESCRIBE_CONFIGS})
# Outputs are read, for records that are not the job's, before those of former runs are deleted.
_REPLACE = _WRITE | {AclOperation.READ, AclOperation.DELETE}


def check_permissions(job: Job, admin: AdminClient) -> None:
    """Raise NotPermittedError, which names every operation that the job needs for sorting and does not have."""
    outputs = [sort.topic for sort in job.topic_sorts]
    write = _REPLACE if job.replaces else _WRITE
    topics: Needs = {job.source_topic: _SORT, job.ledger: _SORT | _WRITE, job.dead_letters: _WRITE}
    topics = {**topics, **dict.fromkeys(outputs, write)}
    if job.partition_by == "source":
        topics = {**topics, **dict.fromkeys(_find_short(admin, job.source_topic, outputs), write | _ALTER)}
    _check(job, admin, topics, dict.fromkeys((job.group, job.owner_group), _READ))


def check_reading(job: Job, admin: AdminClient, topics: Iterable[str]) -> None:
    """Raise NotPermittedError, which names what is missing to read these topics, as verification does."""
    _check(job, admin, dict.fromkeys(topics, _READ), {job.group: frozenset({AclOperation.DESCRIBE})})


def permits_writing(admin: AdminClient, topic: str) -> bool:
    """Whether the cluster permits writing to a topic that exists, as far as Kafka says."""
    answers = admin.describe_topics(
        TopicCollection([topic]), request_timeout=_REQUEST_TIMEOUT, include_authorized_operations=True
    )
    needed = frozenset({AclOperation.WRITE})
    return needed <= _permitted(answers[topic], needed)


def _find_short(admin: AdminClient, source: str, outputs: Sequence[str]) -> list[str]:
    """Return the outputs that have fewer partitions than the source; those that cannot be seen are not short."""
    answers = admin.describe_topics(TopicCollection([source, *outputs]), request_timeout=_REQUEST_TIMEOUT)
    counts = {}
    for name, answer in answers.items():
        with suppress(KafkaException):
            counts[name] = len(await_answer(answer, _REQUEST_TIMEOUT).partitions)
    return [name for name in outputs if name in counts and counts[name] < counts.get(source, 0)]


@contextmanager
def name_refusals(job: Job, admin: AdminClient) -> Iterator[None]:
    """Name what is missing now: for a refusal during the run, Kafka often names only the kind of resource."""
    try:
        yield
    except NotPermittedError:
        check_permissions(job, admin)
        raise


def _check(job: Job, admin: AdminClient, topics: Needs, groups: Needs) -> None:
    """Read and Write include Describe, so it is rarely asked for."""
    options: dict[str, Any] = {"include_authorized_operations": True}
    of_topics = admin.describe_topics(TopicCollection(list(topics)), request_timeout=_REQUEST_TIMEOUT, **options)
    of_groups = admin.describe_consumer_groups(list(groups), request_timeout=GROUP_REQUEST_TIMEOUT, **options)
    missing = [*_missing("topic", topics, of_topics), *_missing("group", groups, of_groups)]
    if missing:
        raise NotPermittedError(
            f"the cluster does not permit job {job.name} {'; '.join(missing)}: grant it to this principal "
            "(kafka-acls --add); docs/security.md lists all that a job needs",
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
        )


def _missing(kind: str, needs: Needs, answers: Mapping[str, Future[Any]]) -> Iterator[str]:
    for name, needed in needs.items():
        if lacking := needed - _permitted(answers[name], needed):
            yield f"{', '.join(sorted(map(_title, lacking)))} on {kind} {name}"


def _permitted(answer: Future[Any], otherwise: Operations) -> Operations:
    """Return the permitted operations; `otherwise` if Kafka gives none, as for a topic that does not exist yet."""
    try:
        found = await_answer(answer, _REQUEST_TIMEOUT).authorized_operations
    except KafkaException as error:
        return frozenset() if error.args[0].code() in _HIDDEN else otherwise
    return otherwise if found is None else frozenset(found)


def _title(operation: AclOperation) -> str:
    """Turn `DESCRIBE_CONFIGS` into `DescribeConfigs`."""
    return operation.name.title().replace("_", "")
