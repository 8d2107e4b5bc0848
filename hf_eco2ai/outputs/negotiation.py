"""What a client can read, and which of it we send (RFC 9110, 12.5)."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

MOST_RANGES = 64
"""Entries of an `Accept` header that are looked at. Browsers send eight, and whoever sends thousands means no good."""

REMEMBERED_HEADERS = 64
"""Different headers that are kept apart: a Prometheus sends the same one with every scrape."""

_ENTRY = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
"""What stands between commas; a comma within quotes is none."""
_PART = re.compile(r'(?:[^";]|"(?:[^"\\]|\\.)*"?)+')
_QUALITY = re.compile(r"[01]?\.?[0-9]*")


class _Range(NamedTuple):
    """One entry of an `Accept` header: `text/*;version=0.0.4;q=0.5`."""

    kind: str
    subkind: str
    parameters: Mapping[str, str]
    quality: float

    def fit(self, offer: "_Range") -> tuple[int, int] | None:
        """How specifically the offer is meant; None where it is not.

        Only a parameter that the offer has as well can rule it out. `charset` cannot: all we send is UTF-8, and says so.
        """
        named = (self.kind == offer.kind, self.subkind == offer.subkind)
        if (self.kind != "*" and not named[0]) or (self.subkind != "*" and not named[1]):
            return None
        common = (self.parameters.keys() & offer.parameters.keys()) - {"charset"}
        if any(self.parameters[name] != offer.parameters[name] for name in common):
            return None
        return sum(named), len(common)


def choose(accept: str, offers: Sequence[str], default: str | None = None) -> str | None:
    """The offer that an `Accept` header likes best; None where it allows none of them.

    Offers are full media types, the one we like best first. `default` (the first, if not said) is for clients that do not care:
    without the header, with one that says nothing, or where only a wildcard such as `*/*` allows several alike.
    """
    return _choose(accept, tuple(offers), offers[0] if default is None else default)


@lru_cache(REMEMBERED_HEADERS)
def _choose(accept: str, offers: tuple[str, ...], default: str) -> str | None:
    ranges = _ranges(accept)
    if not ranges:
        return default
    best, best_rank = None, (0.0, (0, 0), False)
    for offer in offers:
        quality, fit = _liking(ranges, offer)
        rank = (quality, fit, fit[0] < 2 and offer == default)  # noqa: PLR2004 - type and subtype
        if quality > 0 and (best is None or rank > best_rank):
            best, best_rank = offer, rank
    return best


def _liking(ranges: Sequence[_Range], offer: str) -> tuple[float, tuple[int, int]]:
    """Quality of an offer, by the range that means it most specifically; 0 where none does."""
    (offered,) = _ranges(offer)
    fits = [(fit, wanted.quality) for wanted in ranges if (fit := wanted.fit(offered)) is not None]
    fit, quality = max(fits, default=((0, 0), 0.0))
    return quality, fit


def _ranges(header: str) -> list[_Range]:
    """The entries of a header, without what cannot be read as one."""
    entries = (found.group() for found, _ in zip(_ENTRY.finditer(header), range(MOST_RANGES), strict=False))
    return [wanted for wanted in map(_range, entries) if wanted is not None]


def _range(entry: str) -> _Range | None:
    name, parameters = _split(entry)
    kind, _, subkind = ("*/*" if name == "*" else name).partition("/")
    quality = _quality(parameters)
    if not kind or not subkind or quality is None or (kind == "*" and subkind != "*"):
        return None
    return _Range(kind, subkind, parameters, quality)


def _split(entry: str) -> tuple[str, dict[str, str]]:
    """`text/plain; version="0.0.4"` as its name and its parameters, all in small letters."""
    name, *parts = (part.strip() for part in _PART.findall(entry.lower())) if entry.strip(" \t;") else ("",)
    pairs = (part.partition("=") for part in parts)
    return name, {key.strip(): value.strip().strip('"') for key, _, value in pairs}


def _quality(parameters: Mapping[str, str]) -> float | None:
    """`q`, 1 where it is not said; None where it is none."""
    said = parameters.get("q", "1")
    if not _QUALITY.fullmatch(said) or not any(map(str.isdigit, said)):
        return None
    return min(float(said), 1.0)


def accepts_gzip(header: str) -> bool:
    """Whether an `Accept-Encoding` header allows gzip (RFC 9110, 12.5.3): named, and not with a quality of 0."""
    for entry in header.split(","):
        name, parameters = _split(entry)
        if name == "gzip":
            return (_quality(parameters) or 0.0) > 0
    return False
