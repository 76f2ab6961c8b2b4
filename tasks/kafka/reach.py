"""Checks before any work that a cluster can be reached from here, and answers within the start timeout.

A client connects twice: to an address that it was given, and then to the addresses that the brokers give themselves
(`advertised.listeners`). An error says which of the two does not work, and why.
"""

import json
import re
import socket
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import KafkaError, KafkaException
from tenacity import stop_after_delay

from tasks.errors import BrokerUnavailableError, KafkaSortError, SettingsError
from tasks.kafka.clients import TERMINAL, Admin, KafkaTransientError, Property, await_answer, make_admin
from tasks.kafka.topics import EARLIEST, REQUEST_TIMEOUT, Topic, list_all_offsets
from tasks.run_context import current_run
from tasks.settings.connection import Connection

# A refused connection is retried for ever: its reason is reported before the whole timeout is over.
_LOOK_SECONDS = 1.0
_SHORTEST_SECONDS = 0.01
# The last part of the start timeout: it serves to learn the brokers' own addresses, and what is wrong with them.
_LEARN_SECONDS = 2.0
_PROBE_SECONDS = 1.0
_PROBED_AT_ONCE = 32
_TURNED_AWAY = {
    KafkaError._AUTHENTICATION: "check sasl.mechanism, sasl.username and sasl.password",
    KafkaError._SSL: (
        "check ssl.ca.location, that the address is one the broker's certificate is for, and, where it asks for one, "
        "your own ssl.certificate.location"
    ),
}
# Node id → host and port, as the broker itself gives them.
_Brokers = Mapping[int, tuple[str, int]]


def require_broker(admin: Admin, connection: Connection, timeout: float) -> None:
    """Return when a broker answers at the address it gives itself.

    BrokerUnavailableError, which names the address, if none does within `timeout` seconds; SettingsError if a broker
    turns us away; StoppedError if the run is to stop.
    """
    last_look = time.monotonic() + timeout - min(_LEARN_SECONDS + _PROBE_SECONDS, timeout / 2)
    while True:
        current_run().stop.check()
        seconds = max(min(_LOOK_SECONDS, last_look - time.monotonic()), _SHORTEST_SECONDS)
        try:
            # The answer names a controller, another one after a while: a broker that is down does no harm.
            admin.list_topics(timeout=seconds)
        except KafkaException as error:
            # The call says only that it got no answer; the errors of the connections say why.
            met = [*_met(admin), error.args[0]]
            for cause in met:
                _raise_if_turned_away(connection, cause)
            if time.monotonic() >= last_look:
                raise _explain(admin, connection, timeout, _reason(met[0])) from error
            continue
        try:
            await_answer(admin.describe_cluster(request_timeout=seconds), seconds + _LOOK_SECONDS)
        except KafkaException as error:
            if time.monotonic() >= last_look:
                raise _explain(admin, connection, timeout, _reason(error.args[0])) from error
        else:
            return


def require_leaders(admin: Admin, connection: Connection, topics: Iterable[Topic], timeout: float) -> None:
    """Return when all leaders of the topics' partitions answer; BrokerUnavailableError names those that do not.

    A partition without a leader is left out: a job may be permitted to skip it.
    """
    patience = stop_after_delay(max(timeout - REQUEST_TIMEOUT - _LEARN_SECONDS - _PROBE_SECONDS, 0))
    try:
        list_all_offsets.retry_with(stop=patience)(admin, {topic.name: topic.led for topic in topics}, EARLIEST)
    except KafkaTransientError as error:
        if not _find_faults(brokers := _learn_brokers(connection, _LEARN_SECONDS)):
            raise
        raise _unreachable(admin, connection, brokers, timeout) from error


def _explain(admin: Admin, connection: Connection, timeout: float, reason: str) -> KafkaSortError:
    if brokers := _learn_brokers(connection, min(_LEARN_SECONDS, timeout / 2)):
        return _unreachable(admin, connection, brokers, timeout)
    return BrokerUnavailableError(
        f"no broker answered at {connection.bootstrap_servers} within {timeout:g} s ({reason}): start one (kafka-sort "
        "broker), give its address (--bootstrap-servers), or check that it speaks your security.protocol"
    )


def _learn_brokers(connection: Connection, seconds: float) -> _Brokers:
    """Learn the brokers' own addresses with a client of its own, from any broker that answers; empty if none does.

    The addresses come from librdkafka's statistics. A client that knows the brokers forgets the addresses it was given,
    and a metadata call then waits for brokers that it cannot reach.
    """
    told: list[str] = []
    watching: dict[str, Property] = {"statistics.interval.ms": 100, "stats_cb": told.append}
    client = make_admin(connection, **watching)
    deadline = time.monotonic() + seconds
    found: _Brokers = {}
    while not found and time.monotonic() < deadline:
        client.poll(0.1)
        brokers = json.loads(told[-1])["brokers"].values() if told else ()
        found = {broker["nodeid"]: _split(broker["nodename"]) for broker in brokers if broker["nodeid"] >= 0}
    return found


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _unreachable(admin: Admin, connection: Connection, brokers: _Brokers, timeout: float) -> KafkaSortError:
    faults = _find_faults(brokers)
    for cause in [] if faults else _met(admin):
        _raise_if_turned_away(connection, cause)
    named = faults or dict.fromkeys(brokers, "which did not answer as a broker")
    shown = "; ".join(f"broker {node} calls itself {_address(*brokers[node])}, {why}" for node, why in named.items())
    return BrokerUnavailableError(
        f"{connection.bootstrap_servers} answers, but the names of its brokers lead nowhere within {timeout:g} s: "
        f"{shown}: set advertised.listeners of the broker to an address that clients can resolve and reach, or make "
        "this one so (DNS, /etc/hosts, a firewall)"
    )


def _find_faults(brokers: _Brokers) -> dict[int, str]:
    """Find why brokers cannot be connected to, by node; those that can are left out."""
    pool = ThreadPoolExecutor(_PROBED_AT_ONCE)
    try:
        probes = {node: pool.submit(_probe, *address) for node, address in sorted(brokers.items())}
        deadline = time.monotonic() + _PROBE_SECONDS
        found = {}
        for node, probe in probes.items():
            try:
                found[node] = probe.result(max(deadline - time.monotonic(), 0))
            except TimeoutError:
                found[node] = "which could not be looked up, or does not answer"
        return {node: why for node, why in found.items() if why}
    finally:
        # A look-up that hangs is not waited for.
        pool.shutdown(wait=False, cancel_futures=True)


def _probe(host: str, port: int) -> str:
    """Return what is wrong with the address; empty if something listens there."""
    try:
        with socket.create_connection((host, port), _PROBE_SECONDS * 0.9):
            return ""
    except (socket.gaierror, UnicodeError):
        return "which cannot be resolved from here"
    except TimeoutError:
        return "which cannot be reached from here (no answer to a connection)"
    except (OSError, OverflowError) as error:
        return f"which cannot be reached from here ({error.strerror or error})"  # type: ignore[union-attr]


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _met(admin: Admin) -> list[KafkaError]:
    admin.poll(0)
    return [error for error in admin.met if error.code() != KafkaError._ALL_BROKERS_DOWN]


def _raise_if_turned_away(connection: Connection, error: KafkaError) -> None:
    if error.code() not in TERMINAL:
        return
    hint = _TURNED_AWAY.get(error.code(), "check the Kafka properties")
    raise SettingsError(f"the broker at {connection.bootstrap_servers} cannot be used ({_reason(error)}): {hint}")


def _reason(error: KafkaError) -> str:
    """Return librdkafka's text without its name for the connection, and without times."""
    return re.sub(r"^[a-z_]+://[^ ]*: | \(after \d+ms in state [^)]*\)", "", error.str())
