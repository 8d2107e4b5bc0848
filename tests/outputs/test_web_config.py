import os
import ssl
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.outputs.tls import refusal_reason
from hf_eco2ai.outputs.watched import MOST_BYTES, WatchedFiles
from hf_eco2ai.outputs.web_config import RateLimit, WebConfig, WebConfigFile, load
from hf_eco2ai.outputs.web_settings import HEADERS, duration, parse
from tests.outputs.certificates import DAY, Authority, InMemory, client_context, encrypted

# Both out of the exporter-toolkit's docs.
ALICE = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze"
BOB = "$2y$10$hLqFl9jSjoAAy95Z/zw8Ye8wkdMBM8c5Bn1ptYqP/AXyV0.oy0S8m"

MUTUAL = """
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
"""

NOBODY = 65534

SERVER = "tls_server_config: {cert_file: server.crt, key_file: server.key"
"""To be closed by whoever uses it."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whose certificate is `ca.crt`, and with a server's beside it."""
    authority = Authority()
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    authority.server().write(tmp_path, "server")
    return authority


def write(folder: Path, text: str) -> Path:
    path = folder / "web.yml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def tls_of(config: WebConfig) -> ssl.SSLContext:
    assert config.tls is not None
    return config.tls


def wrong(folder: Path, text: str) -> str:
    """What is said of a file, without the file's own name, which stands at the begin."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    assert caught.value.__cause__ is None  # Whose text could hold a value.
    return said.removeprefix(str(path)).lstrip(": ")


def test_the_toolkits_own_sample_is_read(tmp_path: Path, authority: Authority) -> None:
    config = load(
        write(
            tmp_path,
            f"""
# TLS and basic authentication configuration example.
tls_server_config:
  cert_file: server.crt
  key_file: server.key
basic_auth_users:
  alice: {ALICE}
  bob: {BOB}
rate_limit:
  interval: "1s"
  burst: 20
""",
        )
    )
    assert config.tls is not None
    assert config.users == {"alice": ALICE, "bob": BOB}
    assert config.rate_limit == RateLimit(1.0, 20)
    assert config.warnings == ()


def test_braces_are_a_file_that_asks_for_nothing(tmp_path: Path) -> None:
    assert load(write(tmp_path, "{}")) == WebConfig()


def test_an_empty_file_is_refused_since_a_half_written_one_must_not_open_the_port(tmp_path: Path) -> None:
    for text in ("", "\n", "# nothing\n", "null"):
        assert wrong(tmp_path, text).startswith("is empty; write {}")


@pytest.mark.parametrize("given_", ["~", "", "{}"])
def test_an_empty_section_is_allowed_as_in_the_toolkit_and_warned_of(tmp_path: Path, given_: str) -> None:
    config = load(write(tmp_path, f"tls_server_config: {given_}\nbasic_auth_users: {given_}\n"))
    assert (config.tls, config.users) == (None, {})
    assert [warning.partition(": ")[2] for warning in config.warnings] == [
        "tls_server_config: is empty, so this is plain HTTP",
        "basic_auth_users: is empty, so nobody is asked for a password",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b: c", "is not valid YAML (line 1, column 5)"),
        (f"a: *{ALICE[4:9]}", "is not valid YAML"),
        ("\tx: y", "is not valid YAML (line 1"),
        ("\0", "is not valid YAML"),
        ("[" * 500, "is not valid YAML"),
        ("a: &a [*a]", "is not valid YAML"),
        ("- tls_server_config", "should be a mapping"),
        ("basic_auth_user: {}", "basic_auth_user: there is no such key; did you mean basic_auth_users?"),
        ("Basic_Auth_Users: {}", "Basic_Auth_Users: there is no such key; did you mean basic_auth_users?"),
        ("tls_server_config: {certfile: x}", "tls_server_config.certfile: there is no such key; did you mean cert_file?"),
        ("tls_server_config: {certfile: }", "tls_server_config.certfile: there is no such key"),
        ("cert_file: x", "cert_file: there is no such key; it belongs under tls_server_config"),
        ("zzz: x", "there are tls_server_config, http_server_config, basic_auth_users, rate_limit"),
        ("rate_limit: {}\nrate_limit: {}", "rate_limit is there more than once (line 1)"),
        ("null: x", "None: Keys should be strings"),
        ("rate_limit: [1]", "rate_limit: should be a mapping"),
        ("rate_limit: {interval: 1, burst: 1}", "rate_limit.interval: should be a number with a unit, such as 1s or 500ms"),
        ("rate_limit: {interval: 25h, burst: 1}", "rate_limit.interval: should be a day at most"),
        ("rate_limit: {interval: -1s, burst: 1}", "rate_limit.interval: should be a number with a unit"),
        ("rate_limit: {interval: 1s, burst: two}", "rate_limit.burst: should be a whole number"),
        ("rate_limit: {interval: 1s}", "rate_limit: burst is missing or 0"),
        ("rate_limit: {burst: 1}", "rate_limit: interval is missing"),
        ("http_server_config: {http2: maybe}", "http_server_config.http2: should be true or false"),
        ("http_server_config: {headers: {X-Frame: deny}}", "X-Frame cannot be set here; did you mean X-Frame-Options?"),
        ("http_server_config: {headers: {X-Frame-Options: yes}}", "X-Frame-Options should be deny or sameorigin"),
        ('http_server_config: {headers: {X-XSS-Protection: "1\\r\\nX: y"}}', "X-XSS-Protection should have one line of ASCII"),
        ("basic_auth_users: {prom: hunter2}", "basic_auth_users.prom: should be a bcrypt hash, as `htpasswd -nBC 10 NAME`"),
        (f"basic_auth_users: {{prom: {ALICE[:-1]}}}", "basic_auth_users.prom: should be a bcrypt hash"),
        (f"basic_auth_users: {{prom: {ALICE}x}}", "basic_auth_users.prom: should be a bcrypt hash"),
        ("basic_auth_users: {prom: }", "basic_auth_users.prom: should be a text"),
        (f"basic_auth_users: {{'{ALICE}': prom}}", "basic_auth_users.(hidden): is a hash in the place of a name"),
        (f"basic_auth_users: {{'a:b': {ALICE}}}", "basic_auth_users.a:b: can never log in"),
        (f"basic_auth_users: {{a: {ALICE}, a: {BOB}}}", "a is there more than once"),
        ("tls_server_config: {min_version: SSL3}", "min_version: should be 'TLS10', 'TLS11', 'TLS12' or 'TLS13'"),
        ("tls_server_config: {client_auth_type: Any}", "client_auth_type: should be 'NoClientCert'"),
        ("tls_server_config: {cipher_suites: x}", "tls_server_config.cipher_suites: should be a list"),
        ("tls_server_config: {min_version: TLS12}", "cert_file: is missing; TLS needs a certificate and its key"),
        ("tls_server_config: {cert_file: server.crt}", "key_file: is missing; TLS needs a certificate and its key"),
        (f"{SERVER}, key: x}}", "tls_server_config.key: is given here and as key_file; leave one of them out"),
        (f"{SERVER}, client_ca_file: ca.crt}}", "client_ca_file: would not be used, since no client_auth_type is set"),
        (f"{SERVER}, client_auth_type: VerifyClientCertIfGiven}}", "client_ca_file: is missing, and VerifyClientCertIfGiven"),
        (f"{SERVER}, client_auth_type: RequestClientCert}}", "certificate unverified; use RequireAndVerifyClientCert"),
        (f"{SERVER}, client_auth_type: RequireAnyClientCert}}", "certificate unverified; use RequireAndVerifyClientCert"),
        (f"{SERVER}, client_allowed_sans: [a]}}", "client_allowed_sans: means something only with client_auth_type"),
        (f"{SERVER}, max_version: TLS11}}", "max_version: TLS11 is broken (RFC 8996)"),
        (f"{SERVER}, min_version: TLS13, max_version: TLS12}}", "max_version: TLS12 is less than min_version, TLS13"),
        (f"{SERVER}, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}}", "TLS_RSA_WITH_RC4_128_SHA is not one of those that are safe"),
        (f"{SERVER}, cipher_suites: [TLS_AES_128_GCM_SHA256]}}", "has none of TLS 1.2; add one, or set min_version: TLS13"),
        (f"{SERVER}, curve_preferences: [P224]}}", "curve_preferences: P224 is not known; there are X25519, CurveP256"),
        (f"{SERVER}, curve_preferences: [X25519, CurveP256]}}", "held to one curve only; leave X25519 alone, or none"),
    ],
)
def test_each_mistake_has_a_sentence_with_its_key_and_never_a_value(
    tmp_path: Path, authority: Authority, text: str, said: str
) -> None:
    message = wrong(tmp_path, text)
    assert said in message
    for secret in ("hunter2", ALICE[7:], BOB[7:], ALICE[4:9]):
        assert secret not in message


def test_each_mistake_with_a_file_names_key_and_file(tmp_path: Path, authority: Authority) -> None:
    gone = tmp_path / "gone"
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(b"x" * (MOST_BYTES + 1))
    Authority().server().write(tmp_path, "other")
    (tmp_path / "secret.key").write_bytes(encrypted(authority.server()))
    (tmp_path / "damaged.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", encoding="ascii")

    def said(cert: str, key: str, more: str = "") -> str:
        return wrong(tmp_path, f"tls_server_config: {{cert_file: {cert}, key_file: {key}{more}}}").removeprefix(
            "tls_server_config."
        )

    assert said("gone", "server.key") == f"cert_file: {gone} cannot be read (No such file or directory)"
    assert said("server.crt", str(gone)) == f"key_file: {gone} cannot be read (No such file or directory)"
    assert said("folder", "server.key") == f"cert_file: {tmp_path / 'folder'} is not a file"
    assert said('"a\\0b"', "server.key").endswith("cannot be read (not a path)")
    assert said("/dev/zero", "server.key") == "cert_file: /dev/zero is not a file"
    assert said("large", "server.key") == f"cert_file: {tmp_path / 'large'} is larger than {MOST_BYTES} bytes"
    assert said("server.crt", "other.key") == "key_file: the key does not belong to the certificate of cert_file"
    assert said("server.key", "server.crt") == f"cert_file: {tmp_path / 'server.key'} has no certificate in PEM form"
    assert said("server.crt", "server.crt") == f"key_file: {tmp_path / 'server.crt'} has no private key in PEM form"
    assert said("damaged.crt", "server.key").startswith("cert_file: OpenSSL does not take it together with key_file (")
    assert said("server.crt", "secret.key").startswith("key_file: the key needs a passphrase")
    verify = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: "
    assert (
        said("server.crt", "server.key", verify + "gone") == f"client_ca_file: {gone} cannot be read (No such file or directory)"
    )
    assert "client_ca_file" in said("server.crt", "server.key", verify + "server.key")
    assert said("server.crt", "server.key", verify + "damaged.crt").startswith("client_ca_file: OpenSSL cannot read")


def test_a_missing_config_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yml cannot be read \(No such file or directory\)$"):
        load(tmp_path / "nowhere.yml")


@pytest.fixture
def _as_an_ordinary_user() -> Iterator[None]:
    """Root may read everything, so it becomes nobody for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    yield
    os.seteuid(before)


@pytest.fixture
def kept_to_root(tmp_path: Path) -> Path:
    path = write(tmp_path, "{}")
    path.chmod(0)
    return path


@pytest.mark.usefixtures("kept_to_root", "_as_an_ordinary_user")
def test_an_unreadable_file_is_named(kept_to_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"web\.yml cannot be read \(Permission denied\)$"):
        load(kept_to_root)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(path)


def test_a_missing_library_is_named_with_the_extra_that_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    assert "bcrypt; pip install 'hf-eco2ai[serve]'" in wrong(tmp_path, f"basic_auth_users: {{a: {ALICE}}}")
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert "PyYAML; pip install 'hf-eco2ai[serve]'" in wrong(tmp_path, "{}")


VALUE = "h7nter2pass"
names = st.sampled_from(
    ["tls_server_config", "basic_auth_users", "rate_limit", "http_server_config", "headers", "key", "cert", "burst", "interval"]
)
documents = st.recursive(
    st.sampled_from([VALUE, f"${VALUE}", "1s", "1", "", None, True, f"$2y$10${VALUE}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def said_of(content: bytes) -> str:
    """What is wrong with it, or what it looks like if nothing is."""
    try:
        return repr(parse(content).basic_auth_users)
    except ConfigError as error:
        return str(error)


@given(documents)
def test_nothing_that_is_yaml_gets_more_than_a_sentence_and_no_sentence_tells_a_value(document: object) -> None:
    said = said_of(yaml.safe_dump(document).encode())
    assert VALUE not in said
    assert said.isprintable()


@given(st.binary(max_size=60))
def test_bytes_that_are_anything_get_a_sentence_at_most(content: bytes) -> None:
    assert said_of(content).isprintable()


def test_neither_hashes_nor_keys_are_in_what_a_config_looks_like(tmp_path: Path, authority: Authority) -> None:
    certificate, key = ((tmp_path / name).read_text(encoding="ascii") for name in ("server.crt", "server.key"))
    text = yaml.safe_dump({"tls_server_config": {"cert": certificate, "key": key}, "basic_auth_users": {"alice": ALICE}})
    shown = repr(load(write(tmp_path, text))) + repr(parse(text.encode()))
    assert ALICE not in shown
    assert key.splitlines()[1] not in shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("500ms", 0.5), ("1m30s", 90.0), ("1.5h", 5400.0), (".5s", 0.5), ("100us", 1e-4), ("3µs", 3e-6), ("0", 0.0)],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "1s ", "-1s", "1e3s", "1d", "١s", None, ["1s"]])
def test_what_is_no_duration_of_gos_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="should be"):
        duration(text)


def test_an_interval_of_0_is_no_limit(tmp_path: Path) -> None:
    assert load(write(tmp_path, "rate_limit: {interval: 0, burst: 3}")).rate_limit is None


def test_user_names_are_texts_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    assert set(load(write(tmp_path, f"basic_auth_users: {{no: {ALICE}, 007: {ALICE}, 1.0: {ALICE}}}")).users) == {
        "no",
        "007",
        "1.0",
    }


def test_only_the_toolkits_headers_may_be_set_and_a_blank_one_is_kept_as_not_to_be_sent(tmp_path: Path) -> None:
    config = load(write(tmp_path, "http_server_config: {headers: {X-Frame-Options: sameorigin, Content-Security-Policy: }}"))
    assert config.headers == (("X-Frame-Options", "sameorigin"), ("Content-Security-Policy", ""))
    assert set(HEADERS) == {  # docs/web-configuration.md
        "Content-Security-Policy",
        "X-Frame-Options",
        "X-Content-Type-Options",
        "X-XSS-Protection",
        "Strict-Transport-Security",
    }


def test_http2_is_accepted_and_a_file_that_asks_for_it_is_told_what_it_gets(tmp_path: Path) -> None:
    assert load(write(tmp_path, "http_server_config: {http2: false}")).warnings == ()
    assert "HTTP/1.1 is what is served" in load(write(tmp_path, "http_server_config: {http2: true}")).warnings[0]


def test_costs_that_are_too_low_or_too_high_are_warned_of(tmp_path: Path) -> None:
    cheap, dear = ALICE.replace("$10$", "$05$"), ALICE.replace("$10$", "$18$")
    warnings = load(write(tmp_path, f"basic_auth_users: {{cheap: {cheap}, dear: {dear}, right: {BOB}}}")).warnings
    assert [warning.split(": ")[1].removeprefix("basic_auth_users.") for warning in warnings] == ["cheap", "dear"]
    assert "cost of 5 makes guessing cheap" in warnings[0]


def test_a_key_and_a_file_with_hashes_that_others_may_read_are_warned_of(tmp_path: Path, authority: Authority) -> None:
    path = write(tmp_path, f"{SERVER}}}\nbasic_auth_users: {{alice: {ALICE}}}\n")
    assert load(path).warnings == ()
    (tmp_path / "server.key").chmod(0o640)
    path.chmod(0o604)
    key, hashes = load(path).warnings
    assert "server.key" in key
    assert "the secrets in it" in hashes


def test_paths_are_relative_to_the_config_file(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, SERVER + "}")
    monkeypatch.chdir("/")
    assert load(path).tls is not None
    assert load(Path(os.path.relpath(path))).tls is not None


def test_certificate_key_and_ca_may_stand_in_the_file_itself(tmp_path: Path, authority: Authority) -> None:
    inline = {
        "cert": (tmp_path / "server.crt").read_text(encoding="ascii"),
        "key": (tmp_path / "server.key").read_text(encoding="ascii"),
        "client_ca": authority.certificate.decode(),
        "client_auth_type": "RequireAndVerifyClientCert",
    }
    config = load(write(tmp_path, yaml.safe_dump({"tls_server_config": inline})))
    client = authority.issue(client=True).write(tmp_path, "client")
    InMemory(tls_of(config), client_context(authority, client)).shake_hands()


# Handshakes


def test_a_client_that_trusts_us_gets_tls_1_3_and_http_1_1(tmp_path: Path, authority: Authority) -> None:
    config = load(write(tmp_path, SERVER + "}"))
    client = client_context(authority)
    client.set_alpn_protocols(["h2", "http/1.1"])
    both = InMemory(tls_of(config), client)
    both.shake_hands()
    assert both.say(b"ok") == b"ok"
    assert (both.client.version(), both.client.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")


def test_the_clients_certificate_reaches_the_server_with_its_names(tmp_path: Path, authority: Authority) -> None:
    config = load(write(tmp_path, MUTUAL + "  client_allowed_sans: [prometheus.internal]\n"))
    assert config.allowed_sans == {"prometheus.internal"}
    client = authority.issue(x509.DNSName("prometheus.internal"), client=True).write(tmp_path, "client")
    both = InMemory(tls_of(config), client_context(authority, client))
    both.shake_hands()
    peer = both.server.getpeercert()
    assert peer is not None
    assert peer["subjectAltName"] == (("DNS", "prometheus.internal"),)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("nobody", "no client certificate"),
        ("expired", "certificate has expired"),
        ("early", "certificate is not yet valid"),
        ("stranger", "unable to get local issuer certificate"),
        ("server", "unsuitable certificate purpose"),
    ],
)
def test_a_client_without_a_right_certificate_is_refused_with_the_reason(
    tmp_path: Path, authority: Authority, who: str, reason: str, version: ssl.TLSVersion
) -> None:
    server = tls_of(load(write(tmp_path, MUTUAL)))
    issued = {
        "nobody": None,
        "expired": authority.issue(client=True, since=-2 * DAY, until=-timedelta(seconds=1)),
        "early": authority.issue(client=True, since=DAY, until=2 * DAY),
        "stranger": Authority("another CA").issue(client=True),
        "server": authority.server(),
    }[who]
    client = client_context(authority, None if issued is None else issued.write(tmp_path, "client"))
    client.maximum_version = version
    assert InMemory(server, client).refusal() == reason


def test_verify_if_given_lets_in_who_has_none_and_keeps_out_who_has_a_wrong_one(tmp_path: Path, authority: Authority) -> None:
    text = MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
    server = tls_of(load(write(tmp_path, text)))
    InMemory(server, client_context(authority)).shake_hands()
    stranger = Authority("another CA").issue(client=True).write(tmp_path, "stranger")
    assert InMemory(server, client_context(authority, stranger)).refusal() == "unable to get local issuer certificate"


def test_a_client_that_does_not_trust_our_ca_is_told_of(tmp_path: Path, authority: Authority) -> None:
    both = InMemory(tls_of(load(write(tmp_path, SERVER + "}"))), client_context(Authority("another CA")))
    assert both.refusal() == "the client says unknown ca"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "plain HTTP"),
        (b"CONNECT x:443 HTTP/1.1\r\n\r\n", "plain HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not TLS"),
        (b"\x16\x03\x01\x00\x05hello", "unexpected message"),
    ],
)
def test_what_is_no_tls_is_refused_by_name(tmp_path: Path, authority: Authority, said: bytes, reason: str) -> None:
    server = tls_of(load(write(tmp_path, SERVER + "}")))
    incoming = ssl.MemoryBIO()
    incoming.write(said)
    with pytest.raises(ssl.SSLError) as refused:
        server.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    assert refusal_reason(refused.value) == reason


def test_min_version_keeps_out_older_clients(tmp_path: Path, authority: Authority) -> None:
    server = tls_of(load(write(tmp_path, SERVER + ", min_version: TLS13}")))
    client = client_context(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert InMemory(server, client).refusal() == "TLS version"
    assert tls_of(load(write(tmp_path, SERVER + "}"))).minimum_version == ssl.TLSVersion.TLSv1_2


def test_an_older_min_version_is_taken_as_tls_1_2_and_said(tmp_path: Path, authority: Authority) -> None:
    config = load(write(tmp_path, SERVER + ", min_version: TLS10}"))
    assert tls_of(config).minimum_version == ssl.TLSVersion.TLSv1_2
    assert "min_version: TLS10 is taken as TLS12" in config.warnings[0]


def test_the_servers_order_of_cipher_suites_is_that_of_the_file(tmp_path: Path, authority: Authority) -> None:
    suites = "[TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]"
    text = f"{SERVER}, max_version: TLS12, cipher_suites: {suites}"
    client = client_context(authority)
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305")
    chosen = []
    for more in ("", ", prefer_server_cipher_suites: false"):
        both = InMemory(tls_of(load(write(tmp_path, text + more + "}"))), client)
        both.shake_hands()
        cipher = both.client.cipher()
        assert cipher is not None
        chosen.append(cipher[0])
    assert chosen == ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256"]


def test_clients_without_a_common_suite_or_curve_are_refused_by_name(tmp_path: Path, authority: Authority) -> None:
    suites = "cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]"
    client = client_context(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    server = tls_of(load(write(tmp_path, f"{SERVER}, {suites}}}")))
    assert InMemory(server, client).refusal() == "no cipher suite in common"
    client = client_context(authority)
    client.set_ecdh_curve("secp384r1")
    server = tls_of(load(write(tmp_path, SERVER + ", curve_preferences: [CurveP521]}")))
    assert InMemory(server, client).refusal() == "no curve in common"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3])
def test_a_session_is_not_taken_up_again_where_clients_are_verified(
    tmp_path: Path, authority: Authority, version: ssl.TLSVersion
) -> None:
    certificate = authority.issue(client=True).write(tmp_path, "client")
    for text, reused in ((MUTUAL, False), (SERVER + "}", True)):
        server, client = tls_of(load(write(tmp_path, text))), client_context(authority, certificate)
        first = InMemory(server, client)
        first.shake_hands()
        first.say(b"ok")
        second = InMemory(server, client, first.client.session)
        second.shake_hands()
        assert second.client.session_reused is reused


# Read again


def serial(server: ssl.SSLContext, client: ssl.SSLContext) -> object:
    both = InMemory(server, client)
    both.shake_hands()
    peer = both.client.getpeercert()
    assert peer is not None
    return peer["serialNumber"]


def test_a_renewed_certificate_is_served_after_reread(tmp_path: Path, authority: Authority) -> None:
    said: list[str] = []
    file = WebConfigFile(write(tmp_path, SERVER + "}"), say=said.append)
    before = serial(tls_of(file.current), client_context(authority))
    assert file.reread() is False
    authority.server().write(tmp_path, "server")
    assert file.reread() is True
    assert serial(tls_of(file.current), client_context(authority)) != before
    assert file.reread() is False
    assert said == []


def test_a_certificate_renewed_before_its_key_keeps_the_old_pair_until_both_are_there(
    tmp_path: Path, authority: Authority
) -> None:
    said: list[str] = []
    file = WebConfigFile(write(tmp_path, SERVER + "}"), say=said.append)
    before, new = file.current, authority.server()
    (tmp_path / "server.crt").write_bytes(new.certificate)
    assert (file.reread(), file.current) == (False, before)
    assert "key_file: the key does not belong to the certificate" in said[0]
    (tmp_path / "server.key").write_bytes(new.key)
    assert file.reread() is True
    assert len(said) == 1


def test_a_bent_symbolic_link_is_a_change(tmp_path: Path) -> None:
    for name, user in (("1", "alice"), ("2", "bobby")):  # As Kubernetes does it: same size, same time.
        (tmp_path / name).mkdir()
        (tmp_path / name / "web.yml").write_text(f"basic_auth_users: {{{user}: {ALICE}}}", encoding="utf-8")
        os.utime(tmp_path / name / "web.yml", (1, 1))
    (tmp_path / "data").symlink_to("1")
    file = WebConfigFile(tmp_path / "data" / "web.yml", say=lambda _: None)
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(tmp_path / "data")
    assert file.reread() is True
    assert set(file.current.users) == {"bobby"}


def test_a_file_that_becomes_wrong_is_said_once_for_each_content_and_the_old_config_stays(tmp_path: Path) -> None:
    said: list[str] = []
    path = write(tmp_path, f"basic_auth_users: {{alice: {ALICE}}}")
    file = WebConfigFile(path, say=said.append)
    before = file.current
    for content, times in (("basic_auth_users: {alice: hunter2}", 1), ("", 2), ("a: 1", 3), ("a: 12", 4)):
        write(tmp_path, content)
        assert file.reread() is False
        os.utime(path, ns=(1, len(said)))  # Touched, and still the same.
        assert file.reread() is False
        assert file.current is before
        assert len(said) == times
        assert said[-1].endswith("; what was read before stays in force")
    path.unlink()
    assert file.reread() is False
    assert "cannot be read (No such file or directory)" in said[-1]
    assert "hunter2" not in "".join(said)
    write(tmp_path, f"basic_auth_users: {{bob: {BOB}}}")
    assert file.reread() is True
    assert (set(file.current.users), len(said)) == ({"bob"}, 5)


def test_what_could_not_be_read_is_tried_again_though_it_looks_the_same(tmp_path: Path) -> None:
    files = WatchedFiles()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError):
        files.read(tmp_path / "folder")
    assert files.have_changed()
    with pytest.raises(ConfigError):
        files.read(tmp_path / "gone")


def test_tls_is_not_lost_or_gained_by_a_file_that_changes(tmp_path: Path, authority: Authority) -> None:
    said: list[str] = []
    file = WebConfigFile(write(tmp_path, SERVER + "}"), say=said.append)
    write(tmp_path, "{}")
    assert file.reread() is False
    assert file.current.tls is not None
    assert "TLS cannot be turned on or off without a restart" in said[0]


def test_warnings_are_said_at_the_begin_and_new_ones_later(tmp_path: Path) -> None:
    said: list[str] = []
    cheap = ALICE.replace("$10$", "$04$")
    file = WebConfigFile(write(tmp_path, f"basic_auth_users: {{alice: {cheap}}}"), say=said.append)
    assert len(said) == 1
    write(tmp_path, f"basic_auth_users: {{alice: {cheap}, bob: {cheap}}}")
    assert file.reread() is True
    assert len(said) == 2
    assert "basic_auth_users.bob" in said[1]
