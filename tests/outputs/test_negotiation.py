"""`Accept` and `Accept-Encoding`, with the headers that Prometheus, browsers and curl send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_eco2ai.outputs.negotiation import accepts_gzip, choose

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OFFERS = (OPENMETRICS, TEXT)

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def chosen(accept: str) -> str | None:
    return choose(accept, OFFERS, TEXT)


@pytest.mark.parametrize("accept", [PROMETHEUS_2, PROMETHEUS_3])
def test_a_prometheus_gets_openmetrics(accept: str) -> None:
    assert chosen(accept) == OPENMETRICS


@pytest.mark.parametrize("accept", ["", "  ", "*/*", "*", FIREFOX, ",", "*/*;q=0.1", "text/plain", "text/*", "text/*;q=0.1"])
def test_who_does_not_care_or_asks_for_text_gets_text(accept: str) -> None:
    assert chosen(accept) == TEXT


def test_without_a_default_the_first_offer_is_for_those_who_do_not_care() -> None:
    assert choose("", OFFERS) == OPENMETRICS
    assert choose("*/*", OFFERS) == OPENMETRICS


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/plain;q=0.4, application/openmetrics-text;q=0.5", OPENMETRICS),
        ("text/plain;q=0.5, application/openmetrics-text;q=0.4", TEXT),
        ("text/plain, application/openmetrics-text", OPENMETRICS),  # Alike to the client, so as we like.
        ("application/openmetrics-text, */*", OPENMETRICS),
        ("text/plain;q=.2, application/openmetrics-text;q=.3", OPENMETRICS),
        ("*/*, text/plain;q=0.5", OPENMETRICS),  # What names a type decides for it, also when it says less.
        ("text/plain;q=0.5, */*", OPENMETRICS),
        ("TEXT/PLAIN ; Q=0.9 , Application/OpenMetrics-Text;q=0.1", TEXT),
    ],
)
def test_the_higher_quality_wins_and_the_more_specific_range_says_it(accept: str, expected: str) -> None:
    assert chosen(accept) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/plain;q=0, */*", OPENMETRICS),
        ("application/openmetrics-text;q=0.0, */*;q=0.1", TEXT),
        ("text/*;q=0, text/plain;q=0.1", TEXT),
        ("*/*;q=0", None),
        ("text/plain;q=0", None),
        ("text/plain;q=0, application/*;q=0.000, */*", None),
    ],
)
def test_a_quality_of_nought_rules_out(accept: str, expected: str | None) -> None:
    assert chosen(accept) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/openmetrics-text;version=0.0.1", None),
        ("application/openmetrics-text;version=2.0.0, text/plain;q=0.1", TEXT),
        ("text/plain;version=1.0.0", None),
        ('text/plain;version="0.0.4"', TEXT),
        ("text/plain;version=1.0.0;q=0.9, text/plain;version=0.0.4;q=0.1", TEXT),
        ("text/plain;version=0.0.4;q=0, text/plain", None),
    ],
)
def test_another_version_is_another_type(accept: str, expected: str | None) -> None:
    assert chosen(accept) == expected


@pytest.mark.parametrize(
    "parameters", [";escaping=allow-utf-8", ";charset=iso-8859-1", ';charset="utf-8"', ";a", ";", ';x="a,b;c\\"d"', ";level=1"]
)
def test_a_parameter_that_we_do_not_know_rules_nothing_out(parameters: str) -> None:
    assert chosen(f"application/openmetrics-text{parameters}, text/plain;q=0.1") == OPENMETRICS


@pytest.mark.parametrize("accept", ["application/json", "image/*", "text/html;q=1", "text/plai", "application/json;q=0"])
def test_nothing_is_chosen_where_nothing_fits(accept: str) -> None:
    assert chosen(accept) is None


@pytest.mark.parametrize(
    "garbage", ["text/plain;q=2x", "text/plain;q=", "text/plain;q=nan", "text/", "/plain", "*/plain", "text"]
)
def test_what_is_no_range_is_as_if_it_were_not_there(garbage: str) -> None:
    assert chosen(garbage) == TEXT
    assert chosen(f"{garbage}, application/openmetrics-text;q=0.1") == OPENMETRICS


_pieces = st.lists(
    st.sampled_from(
        ["text", "application", "/", "*", ",", ";", "q", "=", "0", "1", ".5", '"', "\\", " ", "plain", "version", "nan"]
    )
    | st.text(max_size=3)
).map("".join)


@given(_pieces | st.text())
def test_any_header_at_all_gives_an_offer_or_nothing(accept: str) -> None:
    assert chosen(accept) in {OPENMETRICS, TEXT, None}
    assert accepts_gzip(accept) in {True, False}


def test_a_header_of_a_megabyte_is_read_in_one_go() -> None:
    for piece in ('"', "\\", '"\\', ",", ";", "a/b,", 'a/b;x="', "=", "a"):
        assert chosen(piece * 100_000) in {OPENMETRICS, TEXT, None}


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("br, gzip;q=0.5", True),
        ("br;q=1.0, gzip ; q=0.001", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzipfoo", False),
        ("identity", False),
        ("", False),
    ],
)
def test_gzip_is_for_those_who_name_it(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted
