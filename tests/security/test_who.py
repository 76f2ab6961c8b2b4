"""Authentication: TLS with the broker's host name, SCRAM, client certificates; each refusal is one line, soon."""

import pytest

from tests.cluster import assert_sorted
from tests.command import Outcome
from tests.security.secure import PASSWORD, USER, Secure, Sorter, all_of


def assert_turned_away(outcome: Outcome, *words: str) -> None:
    assert outcome.status == 2, outcome.out + outcome.err
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1, outcome.err
    for word in words:
        assert word in lines[0]
    assert PASSWORD not in outcome.out + outcome.err


# Listener, properties that differ, words of the line.
TURNED_AWAY = {
    "wrong password": ("SCRAM", {"sasl_password": "wrong"}, ["credentials", "sasl.password"]),
    "unknown user": ("SCRAM", {"sasl_username": "nobody"}, ["credentials", "sasl.username"]),
    "another mechanism": ("SCRAM", {"sasl_mechanism": "PLAIN"}, ["PLAIN", "SCRAM-SHA-512", "sasl.mechanism"]),
    "a certificate for another host": ("OTHER", {}, ["certificate", "address"]),
    "a certificate of another authority": ("SCRAM", {"ssl_ca_location": "AUTHORITY"}, ["ssl.ca.location"]),
    "no authority": ("SCRAM", {"ssl_ca_location": ""}, ["ssl.ca.location"]),
    "no client certificate": (
        "MTLS",
        {"ssl_certificate_location": "", "ssl_key_location": ""},
        ["certificate required"],
    ),
    "a stranger's certificate": (
        "MTLS",
        {"ssl_certificate_location": "STRANGER", "ssl_key_location": "STRANGER_KEY"},
        ["certificate"],
    ),
    "no TLS": ("SCRAM", {"security_protocol": "sasl_plaintext"}, ["security.protocol"]),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if c == "wrong password" else pytest.mark.slow) for c in TURNED_AWAY],
)
def test_turned_away(secure: Secure, sorter: Sorter, case: str) -> None:
    """A line says why and which property to check, with exit status 2, long before the start timeout.

    The client retries what it takes for a broken connection: that line comes at the timeout.
    """
    listener, over, words = TURNED_AWAY[case]
    files = {
        "AUTHORITY": secure.folder / "nobody.pem",
        "STRANGER": secure.stranger.path,
        "STRANGER_KEY": secure.stranger.key_path,
    }
    over = {name: str(files.get(value, value)) for name, value in over.items()}
    patience = "3" if listener == "MTLS" or case == "no TLS" else "600"
    outcome = sorter.run(sorter.job("s"), *sorter.flags(listener, **over), "--start-timeout", patience)
    assert_turned_away(outcome, secure.address(listener), *words)


@pytest.mark.slow
def test_client_certificates(secure: Secure, sorter: Sorter) -> None:
    """With mTLS the certificate's name is the principal, which sorts like one with a password."""
    job = sorter.prepare()
    with secure.granted(all_of(job)):
        outcome = sorter.run(job, *sorter.flags("MTLS"))
    assert outcome.status == 0, outcome.err
    assert_sorted(secure.cluster, job)
    assert USER not in outcome.err
