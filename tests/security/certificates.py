"""Certificates of a test's own authority, as PEM files that only their owner can read."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Issued:
    """A certificate with its key; `both` holds the two in one file, as Kafka's brokers read them."""

    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey
    path: Path
    key_path: Path
    both: Path


def make_authority(folder: Path, name: str) -> Issued:
    """A self-signed authority."""
    return _issue(folder, name, None, ())


def issue(folder: Path, name: str, authority: Issued, hosts: tuple[str, ...] = ()) -> Issued:
    """A certificate for CN=`name` and these hosts, by the authority."""
    return _issue(folder, name, authority, hosts)


def _issue(folder: Path, name: str, authority: Issued | None, hosts: tuple[str, ...]) -> Issued:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_general_name, hosts))), critical=False)
    certificate = builder.sign(authority.private if authority else private, hashes.SHA256())
    certificate_text = certificate.public_bytes(serialization.Encoding.PEM)
    key_text = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Issued(
        certificate,
        private,
        _write(folder / f"{name}.pem", certificate_text),
        _write(folder / f"{name}.key", key_text),
        _write(folder / f"{name}.both.pem", key_text + certificate_text),
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(content)
    return path
