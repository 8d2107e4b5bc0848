"""`--web.config.file`, in the format of prometheus/exporter-toolkit: TLS, client certificates, passwords, headers, a rate limit.

Where the toolkit is silently lax, this is loud: a CA that verifies nobody, a suite that is not safe, a key it does not know.
"""

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.outputs import tls
from hf_eco2ai.outputs.watched import WatchedFiles
from hf_eco2ai.outputs.web_settings import RateLimitConfig, WebSettings, parse, shown

CHEAP_COST = 10
"""bcrypt's cost below which guessing is too cheap (OWASP Password Storage Cheat Sheet, 2025)."""
DEAR_COST = 14
"""Beyond it one check takes more than a second, for whoever asks."""


@dataclass(frozen=True)
class RateLimit:
    """A token bucket: at most `burst` requests at once, and one more each `interval` seconds."""

    interval: float
    burst: int


@dataclass(frozen=True)
class WebConfig:
    """What a web config file says. Without any: plain HTTP, for everyone."""

    tls: ssl.SSLContext | None = None
    allowed_sans: frozenset[str] = frozenset()
    """One of these must be in a client's certificate; empty: any name is right."""
    headers: tuple[tuple[str, str], ...] = ()
    """For each response, before what the app says; without a value: not to be sent."""
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    """bcrypt hashes by name; empty: nobody is asked for a password."""
    rate_limit: RateLimit | None = None
    warnings: tuple[str, ...] = ()
    """What works and is still not as it should be, a sentence each."""


def load(path: Path) -> WebConfig:
    """Read the file and all that it names, and check it.

    Raises:
        ConfigError: one sentence with the file, the key and what to do; never a value that might be a secret.

    """
    return _load(path, WatchedFiles())


class WebConfigFile:
    """A web config file that may change while it is used. `say` gets a sentence for each warning and for each mistake made later.

    Raises:
        ConfigError: the file is wrong to begin with.

    """

    def __init__(self, path: Path, *, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._files = WatchedFiles()
        self._wrong: bytes | None = None
        self.current = _load(path, self._files)
        for warning in self.current.warnings:
            say(warning)

    def reread(self) -> bool:
        """Look whether the file, or a certificate or key that it names, has changed; True where `current` is a new one.

        While the file is wrong the old config stays, and that is said once for each wrong content. Takes as long as the disk
        does.
        """
        if not self._files.have_changed():
            return False
        self._files = WatchedFiles()
        try:
            config = _load(self._path, self._files)
            self._check_same_kind(config)
        except ConfigError as error:
            if self._files.content != self._wrong:
                self._wrong = self._files.content
                self._say(f"{error}; what was read before stays in force")
            return False
        before, self.current, self._wrong = self.current, config, None
        for warning in config.warnings:
            if warning not in before.warnings:
                self._say(warning)
        return True

    def _check_same_kind(self, config: WebConfig) -> None:
        """A file that loses its TLS section, perhaps while it is being written, must not open the port to all."""
        if (config.tls is None) != (self.current.tls is None):
            raise ConfigError(f"{self._path}: tls_server_config: TLS cannot be turned on or off without a restart")


def _load(path: Path, files: WatchedFiles) -> WebConfig:
    with _naming(f"{path} "):
        content = files.read(path)
    with _naming(f"{path}: "):
        settings = parse(content)
        if settings.basic_auth_users and find_spec("bcrypt") is None:
            raise ConfigError("basic_auth_users: passwords cannot be checked without bcrypt; pip install 'hf-eco2ai[serve]'")
        context = None
        if _wants_tls(settings):
            with _naming("tls_server_config."):
                context = tls.server_context(settings.tls_server_config, path.parent, files)
    http = settings.http_server_config
    return WebConfig(
        tls=context,
        allowed_sans=frozenset(settings.tls_server_config.client_allowed_sans),
        headers=tuple((name, value or "") for name, value in http.headers.items()),
        users=dict(settings.basic_auth_users),
        rate_limit=_rate_limit(settings.rate_limit),
        warnings=tuple(f"{path}: {warning}" for warning in _warnings(settings, path, files)),
    )


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Say of a mistake where it was made."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{place}{error}") from None


def _wants_tls(settings: WebSettings) -> bool:
    """Whatever is set about TLS, it is not to be served without."""
    return bool(settings.tls_server_config.model_fields_set)


def _rate_limit(settings: RateLimitConfig) -> RateLimit | None:
    return RateLimit(settings.interval, settings.burst) if settings.interval else None


def _warnings(settings: WebSettings, path: Path, files: WatchedFiles) -> Iterator[str]:
    if "tls_server_config" in settings.model_fields_set and not _wants_tls(settings):
        yield "tls_server_config: is empty, so this is plain HTTP"
    for warning in tls.warnings(settings.tls_server_config, path.parent, files):
        yield f"tls_server_config.{warning}"
    if settings.http_server_config.http2:
        yield "http_server_config.http2: HTTP/1.1 is what is served"
    if "basic_auth_users" in settings.model_fields_set and not settings.basic_auth_users:
        yield "basic_auth_users: is empty, so nobody is asked for a password"
    for name, hashed in settings.basic_auth_users.items():
        cost = int(hashed[4:6])
        if cost < CHEAP_COST:
            yield f"basic_auth_users.{shown(name)}: a cost of {cost} makes guessing cheap; it should be {CHEAP_COST} at least"
        elif cost > DEAR_COST:
            yield f"basic_auth_users.{shown(name)}: with a cost of {cost} a check takes more than a second; {DEAR_COST} is plenty"
    if (settings.basic_auth_users or settings.tls_server_config.key) and files.is_exposed(path):
        yield "other users may read the file and the secrets in it; chmod go-rwx takes that from them"
