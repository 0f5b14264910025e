"""Certificates of one job: an authority that lives as long as the job, and pairs of its machines that it signs."""

from __future__ import annotations

import datetime
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = datetime.timedelta(days=365)
_EARLIER = datetime.timedelta(hours=1)
"""Clocks of machines may differ by so much."""
_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    """The certificate."""
    key: bytes
    """The key: whoever has it is whom the certificate names."""


def authority() -> Pair:
    """A new pair that may sign others."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("astroml-job")
    usage = _usage(key_cert_sign=True, crl_sign=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _begun(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def signed(signer: Pair, names: Iterable[str]) -> Pair:
    """A new pair for server and client, signed by an authority.

    Args:
        signer: as of `authority`.
        names: host names and addresses that the machine is called by.
    """
    above = x509.load_pem_x509_certificate(signer.certificate)
    above_key = serialization.load_pem_private_key(signer.key, None)
    assert isinstance(above_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    called = list(dict.fromkeys(names))
    other: list[x509.GeneralName] = [x509.DNSName(name) for name in called]
    addresses: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(name)) for name in called if _is_ip(name)]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _begun(_name("astroml-node"), above.subject, key)
        .add_extension(x509.SubjectAlternativeName([*other, *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True, key_agreement=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above_key.public_key()), critical=False)
    )
    return _pair(builder.sign(above_key, hashes.SHA256()), key)


def own_names() -> list[str]:
    """Names and addresses of this machine."""
    addresses = [
        item.address.partition("%")[0]
        for items in psutil.net_if_addrs().values()
        for item in items
        if item.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return [socket.gethostname(), "localhost", *addresses]


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(**on: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**{**dict.fromkeys(_USES, False), **on})


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + _LIFE)
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pem = serialization.Encoding.PEM
    text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(certificate.public_bytes(pem), text)
