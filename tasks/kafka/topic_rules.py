"""The topic properties that promises depend on: the values that new topics get, and the values that do harm.

Guarantee: no promise rests on a broker's defaults. `docs/topics.md` goes through all of Kafka's topic configuration,
with the reason for each property that is here and for each that is not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from confluent_kafka.admin import AdminClient

from tasks.errors import SettingsError
from tasks.kafka.topics import Topic, broker_settings, check_creation, create_topic

Settings = Mapping[str, str]

# Java's largest long, which Kafka takes for "no limit".
NO_LIMIT = "9223372036854775807"
# A limit in ms that no time since 1970 reaches before the year 2286, and that no log reaches in bytes.
_EVERY_AGE_MS = 10**13
# A dead letter is its record plus the headers that say why.
_ERROR_HEADER_BYTES = 65_536
# A record of the largest size may get a key that it did not have.
_KEY_BYTES = 65_536
# A run's record names each output partition: this size is enough for some hundreds of them.
_LEDGER_RECORD_BYTES = 65_536


@dataclass(frozen=True)
class Rule:
    """One property of a topic.

    `made_with`: the value in a topic that the product creates; None leaves the broker's default. `fits` tells whether
    the value in an existing topic does no harm; None: every value fits. `harm` follows the value in a message.
    `refused`: a wrong value breaks a promise, so that no work begins; otherwise it is a risk that is reported.
    """

    name: str
    made_with: str | None = None
    fits: Callable[[str, Topic], bool] | None = None
    needed: str = ""
    harm: str = ""
    refused: bool = True


@dataclass(frozen=True)
class Breach:
    """A rule that a topic breaks, with the value that it has."""

    kind: str
    topic: str
    rule: Rule
    value: str

    @property
    def setting(self) -> str:
        """`NAME=VALUE`."""
        return f"{self.rule.name}={self.value}"

    @property
    def risk(self) -> str:
        """The line of a warning, which is the same for each topic that has this value."""
        return f"{self.kind}: its {self.setting} {self.rule.harm}"

    def __str__(self) -> str:
        alter = f"kafka-configs --alter --topic {self.topic} --add-config {self.rule.name}={self.rule.needed}"
        return f"{self.setting}, which {self.rule.harm}: it must be {self.rule.needed} ({alter})"


@dataclass(frozen=True)
class TopicRules:
    """The rules of one kind of topic, such as `output` or `ledger`."""

    kind: str
    rules: tuple[Rule, ...]

    @property
    def config(self) -> dict[str, str]:
        """The properties that a new topic of this kind gets."""
        return {rule.name: rule.made_with for rule in self.rules if rule.made_with is not None}

    def breaches(self, topic: Topic, settings: Settings, *, refused: bool) -> list[Breach]:
        """List the rules that the topic breaks: those that refuse it, or those that are only reported."""
        return [
            Breach(self.kind, topic.name, rule, value)
            for rule in self.rules
            if rule.refused is refused and rule.fits is not None
            # A broker that is too old for a property works without it.
            if (value := settings.get(rule.name)) is not None and not rule.fits(value, topic)
        ]

    def check(self, topic: Topic, settings: Settings) -> None:
        """Raise SettingsError, which names each property of the topic that breaks a promise."""
        if found := self.breaches(topic, settings, refused=True):
            told = "; ".join(map(str, found))
            raise SettingsError(f"{self.kind} {topic.name} has {told}, or choose another topic")

    def make(self, admin: AdminClient, name: str, partitions: int, replication_factor: int | None) -> Topic:
        """Create the topic; return it as it is if it exists."""
        return create_topic(admin, name, partitions, replication_factor, self._config(admin, replication_factor))

    def check_make(self, admin: AdminClient, name: str, partitions: int, replication_factor: int | None) -> None:
        """Raise the error of `make`, if Kafka would refuse the topic; it is not created."""
        check_creation(admin, name, partitions, replication_factor, self._config(admin, replication_factor))

    def _config(self, admin: AdminClient, replication_factor: int | None) -> dict[str, str]:
        return self.config | _replicas_in_sync(broker_settings(admin), replication_factor)


def _replicas_in_sync(broker: Settings, replication_factor: int | None) -> dict[str, str]:
    """Return `min.insync.replicas` for a new topic; the broker's default stays where it cannot be read.

    Three replicas are there for the loss of one: two have each record then. A value above the number of replicas would
    make a broker before 3.7 refuse every record. In all other cases the broker's value is never lowered.
    """
    replicas = replication_factor or int(broker.get("default.replication.factor", "0"))
    default = int(broker.get("min.insync.replicas", "0"))
    if not (replicas and default):
        return {}
    wanted = max(default, 2 if replicas > 2 else 1)
    return {"min.insync.replicas": str(min(wanted, replicas))}


def output_rules(source: Settings, *, keep_timestamps: bool, new_keys: bool = False) -> TopicRules:
    """Return the rules of an output. Its retention is the user's choice, unless timestamps of the source are kept.

    `new_keys`: records may have larger keys than in the source.
    """
    kept = (_CREATE_TIME, *_kept_limits(source, "records"))
    times = kept if keep_timestamps else (_ANY_AGE, _finite("retention.ms"))
    return TopicRules(
        "output",
        (_DELETE, _as_large_as(source, _KEY_BYTES * new_keys), *times, _finite("retention.bytes"), *_REPLICATION),
    )


def dead_letter_rules(source: Settings) -> TopicRules:
    """Return the rules of a dead-letter topic. Dead letters keep their records' timestamps, which may be of any age.

    Limits are reported, not refused: topics from earlier versions have the broker's, and most jobs work with them.
    """
    limits = (replace(rule, refused=False) for rule in _kept_limits(source, "dead letters"))
    room = _as_large_as(source, more=_ERROR_HEADER_BYTES)
    own = (_DELETE, room, _CREATE_TIME, *limits, _finite("retention.bytes", made_with="-1"))
    return TopicRules("dead-letter topic", (*own, *_REPLICATION))


def _kept_limits(source: Settings, what: str) -> tuple[Rule, ...]:
    """Return rules for a topic whose records keep the timestamps of a source with these settings."""
    after = source.get("message.timestamp.after.max.ms", "0")
    age, ahead = "message.timestamp.before.max.ms", "message.timestamp.after.max.ms"
    return (
        Rule(age, NO_LIMIT, _at_least(_EVERY_AGE_MS), NO_LIMIT, f"refuses {what} that keep an older timestamp"),
        Rule(ahead, NO_LIMIT, _at_least(int(after)), NO_LIMIT, f"refuses {what} whose timestamp the source takes"),
        Rule("retention.ms", "-1", _is_unlimited, "-1", f"removes {what} that keep an older timestamp at once"),
    )


def generated_rules() -> TopicRules:
    """Return the rules of a topic of sample data, whose records have no key. Its retention is the user's choice."""
    return TopicRules("topic", (_DELETE, _ANY_AGE, *_REPLICATION))


def ledger_rules() -> TopicRules:
    """Return the rules of the ledger. Only a key's newest record counts, so no limit in time or size may remove any."""
    return TopicRules(
        "the ledger",
        (
            Rule("cleanup.policy", "compact", _is("compact"), "compact", "removes records of runs, or keeps them all"),
            Rule(
                "max.message.bytes",
                # Thousands of output partitions are beyond the default of 1 MB.
                "10485760",
                _at_least(_LEDGER_RECORD_BYTES),
                f"{_LEDGER_RECORD_BYTES} or more",
                "is too little for a run's record",
            ),
            # Only closed segments are compacted: by default a stream's ledger would grow to 1 GB, and every start reads
            # it all.
            Rule("segment.bytes", "16777216"),
            Rule("min.cleanable.dirty.ratio", "0.5"),
            Rule("min.compaction.lag.ms", "0"),
            _ANY_AGE,
            _IN_SYNC,
            Rule(_UNCLEAN.name, "false", _is("false"), "false", "may lose records that were acknowledged"),
        ),
    )


def index_rules() -> TopicRules:
    """Return the rules of the topic of sparse indexes. A lost entry costs a look-up time, and no more."""
    return TopicRules(
        "the index",
        (
            Rule("cleanup.policy", "compact"),
            Rule("max.message.bytes", "10485760"),
            Rule("segment.bytes", "16777216"),
            Rule("min.compaction.lag.ms", "0"),
            _ANY_AGE,
        ),
    )


def _is(value: str) -> Callable[[str, Topic], bool]:
    return lambda actual, _: actual == value


def _at_least(limit: int) -> Callable[[str, Topic], bool]:
    return lambda actual, _: int(actual) >= limit


def _is_unlimited(value: str, _: Topic) -> bool:
    return int(value) < 0 or int(value) >= _EVERY_AGE_MS


def _as_large_as(source: Settings, more: int = 0) -> Rule:
    """Return the rule that it takes each record that the source takes; `more` bytes are for added headers."""
    limit = int(source["max.message.bytes"])
    harm = f"is below the source's {limit}, so that it may refuse a record"
    return Rule("max.message.bytes", str(limit + more), _at_least(limit), str(limit + more), harm)


def _finite(name: str, made_with: str | None = None) -> Rule:
    """Return the rule for retention. With an empty cleanup policy it is no retention, which costs a needless line."""
    return Rule(name, made_with, _is_unlimited, "-1", "removes records of former runs in time", refused=False)


# Since Kafka 4.1 the policy may be empty: all is kept.
_DELETE = Rule(
    "cleanup.policy",
    "delete",
    lambda value, _: value in {"delete", ""},
    "delete",
    "would remove records of a run, and refuse those without a key",
)
_CREATE_TIME = Rule(
    "message.timestamp.type",
    "CreateTime",
    _is("CreateTime"),
    "CreateTime",
    "gives each record the broker's time in place of its own",
)
# A record's time is when it was queued. Records that wait longer than the limit for the broker would be refused.
_ANY_AGE = Rule("message.timestamp.before.max.ms", NO_LIMIT)
_IN_SYNC = Rule(
    "min.insync.replicas",
    fits=lambda value, topic: int(value) <= topic.replicas,
    needed="no more than its replicas",
    harm="is more than its replicas, so that a broker before 3.7 refuses every record",
    refused=False,
)
_UNCLEAN = Rule(
    "unclean.leader.election.enable",
    "false",
    # A single replica is its own leader, whatever the setting.
    lambda value, topic: value == "false" or topic.replicas == 1,
    "false",
    "may lose records that were acknowledged",
    refused=False,
)
_REPLICATION = (_IN_SYNC, _UNCLEAN)
