"""Certificates made on the spot, and TLS handshakes in memory."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hf_eco2ai.outputs.tls import refusal_reason

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """`NAME.crt` and `NAME.key`, which only we may read."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        key.chmod(0o600)
        return certificate, key


class Authority:
    """A CA that issues what it is asked for."""

    def __init__(self, name: str = "our CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        builder = _builder(self._name, self._name, self._key.public_key(), -DAY, 365 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.certificate = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, *names: x509.GeneralName, since: timedelta = -DAY, until: timedelta = DAY, client: bool = False) -> Issued:
        """For a server or a client, valid from `since` to `until`, from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = _builder(_name("leaf"), self._name, key.public_key(), since, until)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        issued = builder.sign(self._key, hashes.SHA256())
        return Issued(issued.public_bytes(serialization.Encoding.PEM), _pem(key))

    def server(self) -> Issued:
        """For localhost."""
        return self.issue(x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


def encrypted(issued: Issued) -> bytes:
    """The key, with a passphrase."""
    key = serialization.load_pem_private_key(issued.key, None)
    protection = serialization.BestAvailableEncryption(b"passphrase")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def client_context(authority: Authority, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client that trusts `authority`, with a certificate of its own or without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.certificate.decode())
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


class InMemory:
    """A client and a server, and between them nothing but memory."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self._to_server, self._to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(self._to_server, self._to_client, server_side=True)
        self.client = client.wrap_bio(self._to_client, self._to_server, server_hostname="localhost", session=session)

    def shake_hands(self) -> None:
        """Raises ssl.SSLError, of whichever side gives up first."""
        waiting = [self.client, self.server]
        while waiting:
            side = waiting.pop(0)
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting.append(side)

    def refusal(self) -> str:
        """Why the server gives up, in its own words; empty where it does not."""
        waiting = [self.client, self.server]
        while waiting:
            side = waiting.pop(0)
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting.append(side)
            except ssl.SSLError as error:
                if side is self.server:
                    return refusal_reason(error)
        return ""

    def say(self, said: bytes) -> bytes:
        """From the server to the client, whose TLS so learns of session tickets, too."""
        self.server.write(said)
        return self.client.read(len(said))


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, since: timedelta, until: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since)
        .not_valid_after(now + until)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
