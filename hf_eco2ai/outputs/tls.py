"""A server's TLS context out of `tls_server_config`, and in plain words why a handshake failed."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.outputs.watched import WatchedFiles
from hf_eco2ai.outputs.web_settings import TlsServerConfig, shown

_VERIFY = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}

_CURVES = {"X25519": "X25519", "CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1"}

_TLS13_SUITES = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})
"""Always on with TLS 1.3, in Go as in OpenSSL."""

_SUITES = {
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    )
}
"""Of TLS 1.2, those with forward secrecy and authenticated encryption (RFC 9325, 4.2), as Go and as OpenSSL call them."""

_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no client certificate",
    "HTTP_REQUEST": "plain HTTP",
    "HTTPS_PROXY_REQUEST": "plain HTTP",
    "UNSUPPORTED_PROTOCOL": "TLS version",
    "VERSION_TOO_LOW": "TLS version",
    "NO_PROTOCOLS_AVAILABLE": "TLS version",
    "WRONG_VERSION_NUMBER": "not TLS",
    "NO_SHARED_CIPHER": "no cipher suite in common",
    "NO_SUITABLE_GROUPS": "no curve in common",
    "NO_SUITABLE_KEY_SHARE": "no curve in common",
}


@dataclass(frozen=True)
class _Pem:
    """Certificates or a key, out of a file of their own or out of the config itself."""

    name: str
    content: bytes = field(repr=False)
    path: Path | None

    def check(self, label: bytes, what: str) -> None:
        if b"-----BEGIN" not in self.content or label not in self.content:
            raise ConfigError(f"{self.name}: {self.path or 'what stands there'} has no {what} in PEM form")

    @contextmanager
    def opened(self) -> Iterator[str]:
        """A path for OpenSSL, which reads from nothing else. Through memory, so that an inline key does not reach the disk."""
        if self.path is not None:
            yield str(self.path)
            return
        with os.fdopen(os.memfd_create("hf_eco2ai"), "wb") as file:
            file.write(self.content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"


def server_context(settings: TlsServerConfig, folder: Path, files: WatchedFiles) -> ssl.SSLContext:
    """A context that verifies clients as the settings say. Files are relative to `folder`.

    Raises:
        ConfigError: with the key of `tls_server_config` and what to do.

    """
    cert, key, ca = (_pem(settings, name, folder, files) for name in ("cert", "key", "client_ca"))
    _check_client_auth(settings, ca)
    if cert is None or key is None:
        raise ConfigError(f"{'cert_file' if cert is None else 'key_file'}: is missing; TLS needs a certificate and its key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    _set_versions(context, settings)
    _set_suites(context, settings)
    _set_curve(context, settings.curve_preferences)
    _load_chain(context, cert, key)
    if ca is not None:
        _verify_clients(context, settings.client_auth_type, ca)
    return context


def warnings(settings: TlsServerConfig, folder: Path, files: WatchedFiles) -> Iterator[str]:
    """What works and is still not as it should be."""
    if settings.min_version not in _VERSIONS:
        yield f"min_version: {settings.min_version} is taken as TLS12, since what is older is broken (RFC 8996)"
    if settings.key_file and files.is_exposed(folder / settings.key_file):
        yield f"key_file: other users may read {folder / settings.key_file}; chmod go-rwx takes that from them"


def refusal_reason(error: ssl.SSLError) -> str:
    """Why a handshake failed, in a few words out of a bounded set."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    reason = error.reason or "TLS_FAILED"
    _, alert, said = reason.partition("_ALERT_")
    if alert:
        return f"the client says {said.replace('_', ' ').lower()}"
    return _REASONS.get(reason, reason.replace("_", " ").lower())


def _pem(settings: TlsServerConfig, name: str, folder: Path, files: WatchedFiles) -> _Pem | None:
    inline: str = getattr(settings, name)
    file: str = getattr(settings, f"{name}_file")
    if inline and file:
        raise ConfigError(f"{name}: is given here and as {name}_file; leave one of them out")
    if inline:
        return _Pem(name, inline.encode(), None)
    if not file:
        return None
    path = folder / file
    try:
        return _Pem(f"{name}_file", files.read(path), path)
    except ConfigError as error:
        raise ConfigError(f"{name}_file: {path} {error}") from None


def _check_client_auth(settings: TlsServerConfig, ca: _Pem | None) -> None:
    kind = settings.client_auth_type
    if kind not in _VERIFY:
        raise ConfigError(f"client_auth_type: {kind} would let in any certificate unverified; use RequireAndVerifyClientCert")
    if ca is None and kind != "NoClientCert":
        raise ConfigError(f"client_ca_file: is missing, and {kind} needs it to verify clients with")
    if ca is not None and kind == "NoClientCert":
        raise ConfigError(
            f"{ca.name}: would not be used, since no client_auth_type is set; add client_auth_type: RequireAndVerifyClientCert"
        )
    if settings.client_allowed_sans and kind != "RequireAndVerifyClientCert":
        raise ConfigError("client_allowed_sans: means something only with client_auth_type: RequireAndVerifyClientCert")


def _set_versions(context: ssl.SSLContext, settings: TlsServerConfig) -> None:
    lowest = _VERSIONS.get(settings.min_version, ssl.TLSVersion.TLSv1_2)
    highest = _VERSIONS.get(settings.max_version)
    if highest is None:
        raise ConfigError(f"max_version: {settings.max_version} is broken (RFC 8996); it should be TLS12 or TLS13")
    if highest < lowest:
        raise ConfigError(f"max_version: {settings.max_version} is less than min_version, {settings.min_version}")
    context.minimum_version, context.maximum_version = lowest, highest


def _set_suites(context: ssl.SSLContext, settings: TlsServerConfig) -> None:
    if not settings.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if not settings.cipher_suites:
        return
    unknown = [name for name in settings.cipher_suites if name not in _SUITES and name not in _TLS13_SUITES]
    if unknown:
        raise ConfigError(f"cipher_suites: {shown(unknown[0])} is not one of those that are safe: {', '.join(_SUITES)}")
    chosen = [_SUITES[name] for name in settings.cipher_suites if name in _SUITES]
    if chosen:
        context.set_ciphers(":".join(chosen))
    elif context.minimum_version < ssl.TLSVersion.TLSv1_3:
        raise ConfigError("cipher_suites: has none of TLS 1.2; add one, or set min_version: TLS13")


def _set_curve(context: ssl.SSLContext, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in _CURVES:
            raise ConfigError(f"curve_preferences: {shown(name)} is not known; there are {', '.join(_CURVES)}")
    if len(names) > 1:
        raise ConfigError(f"curve_preferences: Python can be held to one curve only; leave {names[0]} alone, or none")
    for name in names:
        try:
            context.set_ecdh_curve(_CURVES[name])
        except (ValueError, ssl.SSLError):
            raise ConfigError(f"curve_preferences: this Python's OpenSSL cannot be held to {name}; leave it out") from None


def _load_chain(context: ssl.SSLContext, cert: _Pem, key: _Pem) -> None:
    cert.check(b"CERTIFICATE-----", "certificate")
    key.check(b"PRIVATE KEY-----", "private key")

    def refuse_passphrase() -> str:
        raise ConfigError(f"{key.name}: the key needs a passphrase, and nobody is there to type it; store it without one")

    try:
        with cert.opened() as cert_path, key.opened() as key_path:
            context.load_cert_chain(cert_path, key_path, refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
            raise ConfigError(f"{key.name}: the key does not belong to the certificate of {cert.name}") from None
        why = (error.reason or "damaged").replace("_", " ").lower()
        raise ConfigError(f"{cert.name}: OpenSSL does not take it together with {key.name} ({why})") from None
    except OSError as error:
        raise ConfigError(f"{cert.name}: cannot be read ({error.strerror})") from None


def _verify_clients(context: ssl.SSLContext, kind: str, ca: _Pem) -> None:
    ca.check(b"CERTIFICATE-----", "certificate")
    try:
        with ca.opened() as path:
            context.load_verify_locations(path)
    except OSError:  # As all of ssl's errors are.
        raise ConfigError(f"{ca.name}: OpenSSL cannot read the certificates in it") from None
    context.verify_mode = _VERIFY[kind]
    # A session taken up again would not look whether the client's certificate has expired since.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
