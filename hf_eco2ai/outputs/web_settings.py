"""The sections of a web config file, named as the exporter-toolkit names them, and a clear word for each mistake.

The format is docs/web-configuration.md of prometheus/exporter-toolkit. No message holds a value of the file: it may be a secret.
"""

import math
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hf_eco2ai.errors import ConfigError

TlsVersion = Literal["TLS10", "TLS11", "TLS12", "TLS13"]

HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""Those that may be set, and to what; to anything where nothing is said."""

_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]", re.ASCII)
"""Base64 of 16 and of 23 bytes, whose last characters have bits to spare: so a hash that was cut or shifted is found here."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


def duration(text: object) -> float:
    """Seconds of what Go calls a duration: `1s`, `500ms`, `1m30s`, and `0`, which needs no unit."""
    if text == "0":
        return 0.0
    parts = _DURATION.findall(text) if isinstance(text, str) else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("should be a number with a unit, such as 1s or 500ms")
    seconds = math.fsum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > 86_400:  # noqa: PLR2004
        raise ValueError("should be a day at most")
    return seconds


def _bcrypt(text: str) -> str:
    if not _BCRYPT.fullmatch(text):
        raise ValueError("should be a bcrypt hash, as `htpasswd -nBC 10 NAME` prints it, and not the password itself")
    return text


def _user(name: str) -> str:
    if name.startswith("$"):
        raise ValueError("is a hash in the place of a name; write `name: hash`")
    if ":" in name:
        raise ValueError("can never log in: a name in HTTP basic authentication has no colon")
    return name


def _headers(headers: Mapping[str, str | None]) -> Mapping[str, str | None]:
    for name, value in headers.items():
        if name not in HEADERS:
            raise ValueError(f"{shown(name)} cannot be set here; {_nearest(name, HEADERS)}")
        if value is not None and not (value.isascii() and value.isprintable()):
            raise ValueError(f"{name} should have one line of ASCII characters")
        if value and HEADERS[name] and value not in HEADERS[name]:
            raise ValueError(f"{name} should be {' or '.join(HEADERS[name])}")
    return headers


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _unset(cls, values: Any) -> Any:
        """A key without a value is as good as left out."""
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value not in (None, "") or name not in cls.model_fields}


class TlsServerConfig(_Section):
    """`tls_server_config`."""

    cert: str = Field(default="", repr=False)
    key: str = Field(default="", repr=False)
    client_ca: str = Field(default="", repr=False)
    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    client_auth_type: Literal[
        "NoClientCert",
        "RequestClientCert",
        "RequireAnyClientCert",
        "RequireClientCert",  # An old name of the one above.
        "VerifyClientCertIfGiven",
        "RequireAndVerifyClientCert",
    ] = "NoClientCert"
    client_allowed_sans: tuple[str, ...] = ()
    min_version: TlsVersion = "TLS12"
    max_version: TlsVersion = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True
    curve_preferences: tuple[str, ...] = ()


class HttpServerConfig(_Section):
    """`http_server_config`."""

    http2: bool | None = None
    headers: Annotated[dict[str, str | None], AfterValidator(_headers)] = {}


class RateLimitConfig(_Section):
    """`rate_limit`."""

    interval: Annotated[float | None, BeforeValidator(duration)] = None
    burst: int = Field(default=0, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _complete(self) -> "RateLimitConfig":
        if self.interval is None and self.burst:
            raise ValueError("interval is missing: the time until one more request is let through, such as 1s")
        if self.interval and not self.burst:
            raise ValueError("burst is missing or 0, and nobody would be let through; it should be at least 1")
        return self


class WebSettings(_Section):
    """The whole file."""

    tls_server_config: TlsServerConfig = TlsServerConfig()
    http_server_config: HttpServerConfig = HttpServerConfig()
    basic_auth_users: dict[Annotated[str, AfterValidator(_user)], Annotated[str, AfterValidator(_bcrypt)]] = Field({}, repr=False)
    rate_limit: RateLimitConfig = RateLimitConfig()

    @model_validator(mode="before")
    @classmethod
    def _unset(cls, values: Any) -> Any:
        """A section without keys is there, and empty: a warning may be due."""
        if not isinstance(values, dict):
            return values
        return {name: {} if value in (None, "") and name in cls.model_fields else value for name, value in values.items()}


_SECTIONS: dict[str, type[_Section]] = {
    "": WebSettings,
    "tls_server_config": TlsServerConfig,
    "http_server_config": HttpServerConfig,
    "rate_limit": RateLimitConfig,
}

_WORDS = {
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "int_parsing": "should be a whole number",
    "int_type": "should be a whole number",
    "model_type": "should be a mapping: lines of `key: value` below it",
    "dict_type": "should be a mapping: lines of `key: value` below it",
    "tuple_type": "should be a list",
    "string_type": "should be a text",
}


def parse(content: bytes) -> WebSettings:
    """The settings in a file.

    Raises:
        ConfigError: with the key and what it should be, and the nearest right key for one that is unknown.

    """
    try:
        document = _parse_yaml(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text") from None
    if document is None:  # Also what a reader sees of a file that is just being written.
        raise ConfigError("is empty; write {} into it to serve without TLS and without passwords")
    try:
        return WebSettings.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_explain(dict(error.errors(include_input=False, include_url=False)[0]))) from None


def shown(name: str) -> str:
    """A key as a message may show it."""
    if name.startswith("$"):
        return "(hidden)"  # A hash in the place of a name.
    return "".join(c if c.isprintable() else "�" for c in name[:60])


def _parse_yaml(text: str) -> object:
    """All values are texts, for a user may be called `no` and a password's hash is no number."""
    try:
        import yaml  # noqa: PLC0415 - not everyone has a web config, and so not everyone has PyYAML
    except ImportError:
        raise ConfigError("cannot be read without PyYAML; pip install 'hf-eco2ai[serve]'") from None

    class Loader(yaml.BaseLoader):
        def construct_scalar(self, node: yaml.ScalarNode) -> Any:
            return None if node.style is None and node.value in _NULLS else super().construct_scalar(node)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key.value, str)]
            for name, (key, _) in zip(names, node.value, strict=False):
                if names.count(name) > 1:
                    raise ConfigError(f"{shown(name)} is there more than once (line {key.start_mark.line + 1})")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)  # noqa: S506 - makes lists, mappings and texts, and nothing else
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)  # Its text has words of the file in it.
        raise ConfigError(f"is not valid YAML{f' (line {mark.line + 1}, column {mark.column + 1})' if mark else ''}") from None


def _explain(problem: Mapping[str, Any]) -> str:
    place = [str(part) for part in problem["loc"] if part != "[key]"]
    if not place:
        return "should be a mapping: tls_server_config, basic_auth_users and so on"
    if problem["type"] == "extra_forbidden":
        return _unknown(place)
    if problem["type"] == "value_error":
        what = str(problem["ctx"]["error"])
    else:
        what = _WORDS.get(problem["type"]) or str(problem["msg"]).removeprefix("Input ")
    return f"{'.'.join(map(shown, place))}: {what}"


def _unknown(place: list[str]) -> str:
    *sections, name = place
    known = _SECTIONS[".".join(sections)].model_fields
    owner = next((section for section, model in _SECTIONS.items() if section and name in model.model_fields), None)
    near = f"it belongs under {owner}" if owner else _nearest(name, known)
    return f"{'.'.join([*sections, shown(name)])}: there is no such key; {near}"


def _nearest(name: str, known: Iterable[str]) -> str:
    lower = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    return f"did you mean {lower[near[0]]}?" if near else f"there are {', '.join(lower.values())}"
