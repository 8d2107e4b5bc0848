"""What each secret looks like: one that was pasted wrongly is told before an alert fails to arrive. None is ever repeated."""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

SHORTEST_PASSWORD = 8
"""Characters of a password that a person chooses: NIST SP 800-63B, 5.1.1.2."""

_KEY = re.compile(r"[0-9A-Za-z]{32}")
"""Of PagerDuty's Events API v2: its documentation shows 32 letters and digits."""


def problem(name: str, secret: str) -> str | None:
    """What is wrong with it and what it should be, without it; None where nothing is."""
    if not secret:
        return "is empty"
    if len(secret.splitlines()) > 1:
        return "should be one line"
    if not secret.isprintable():
        return "has characters that cannot be printed"
    return _SHAPES[name](secret)


def _slack(secret: str) -> str | None:
    good = _is_url(secret, {"https"}) and urlsplit(secret).path.strip("/")
    return None if good else "should be the URL of an incoming webhook: https://hooks.slack.com/services/…"


def _discord(secret: str) -> str | None:
    good = _is_url(secret, {"https"}) and re.fullmatch(r"/api/(v\d+/)?webhooks/\d+/[\w-]+", urlsplit(secret).path)
    return None if good else "should be the URL of a webhook: https://discord.com/api/webhooks/…/…"


def _webhook(secret: str) -> str | None:
    return None if _is_url(secret, {"http", "https"}) else "should be a URL: http:// or https://, and a host"


def _pagerduty(secret: str) -> str | None:
    return None if _KEY.fullmatch(secret) else "should be the 32 letters and digits of an integration's key (Events API v2)"


def _grafana(secret: str) -> str | None:
    return None if len(secret) >= SHORTEST_PASSWORD else f"should have {SHORTEST_PASSWORD} characters at least"


def _is_url(secret: str, schemes: set[str]) -> bool:
    try:
        url = urlsplit(secret)
        return url.scheme in schemes and bool(url.hostname) and url.port != 0 and " " not in secret
    except ValueError:
        return False


_SHAPES: dict[str, Callable[[str], str | None]] = {
    "slack_url": _slack,
    "pagerduty_key": _pagerduty,
    "smtp_password": lambda _secret: None,
    "discord_url": _discord,
    "webhook_url": _webhook,
    "grafana_admin_password": _grafana,
}
