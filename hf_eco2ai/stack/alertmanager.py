"""alertmanager.yml: made from channels.yml and from which secrets there are.

It is for Alertmanager 0.25, which Debian 12 has, and later ones. Slack's URL, PagerDuty's key and the password for mail are named
by file. 0.25 cannot do so with the URLs of Discord and of a webhook: those stand in the text itself, which is why `render` writes
it for the server's eyes only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from hf_eco2ai.stack import documents
from hf_eco2ai.stack.alerts import Severity
from hf_eco2ai.stack.channels import SEVERITIES, Channel, Channels, Email
from hf_eco2ai.stack.files import is_installed
from hf_eco2ai.stack.inhibition import INHIBITIONS, Inhibition
from hf_eco2ai.stack.secrets import Secrets

NOBODY = "nobody"
"""The receiver that tells nobody: for what no channel wants."""

GROUPED_BY = ("alertname", "project_name")
"""One message for the same alert of several runs of a project."""

_SETTINGS = "alerting/channels.yml"


@dataclass(frozen=True)
class AlertmanagerConfig:
    """What Alertmanager is given, and what the person should be told."""

    text: str = field(repr=False)
    """alertmanager.yml. It may hold URLs that are secret."""
    warnings: tuple[str, ...]
    """One sentence for each channel that is left out."""
    secrets: tuple[str, ...]
    """Names of those that it reads from `<folder>/secrets/`."""


@dataclass(frozen=True)
class _Receiver:
    """A channel that is on."""

    config: dict[str, Any] = field(repr=False)
    secret: str | None = None
    """Read by Alertmanager from its file."""


@dataclass(frozen=True)
class _Off:
    """A channel that is not, and what switches it on."""

    remedy: str


def alertmanager_config(channels: Channels, secrets: Secrets, folder: str) -> AlertmanagerConfig:
    """For an Alertmanager that sees its files in `folder`: `templates/*.tmpl` and `secrets/`.

    Raises:
        ConfigError: a secret is there and cannot be read.

    """
    made = {name: make(channels, secrets, f"{folder}/secrets") for name, make in _RECEIVERS.items()}
    on = {name: receiver for name, receiver in made.items() if isinstance(receiver, _Receiver)}
    config = {
        "templates": [f"{folder}/templates/*.tmpl"],
        "route": _route(channels, list(on)),
        "inhibit_rules": list(map(_inhibit_rule, INHIBITIONS)),
        "receivers": [{"name": NOBODY}] + [{"name": name, f"{name}_configs": [on[name].config]} for name in on],
    }
    off = [f"{_TITLES[name]} is left out: {made.remedy}." for name, made in made.items() if isinstance(made, _Off)]
    warnings = (*off, *(() if on else (_NO_CHANNEL,)))
    return AlertmanagerConfig(
        text=_MADE + documents.written(config),
        warnings=(_NO_CHANNEL + _OF_ONES_OWN,) if is_installed(secrets.folder) else warnings,
        secrets=tuple(receiver.secret for receiver in on.values() if receiver.secret),
    )


_MADE = f"# Made from {_SETTINGS} and secrets/ by `hf-eco2ai stack`; what is changed here is lost.\n"
_NO_CHANNEL = "No channel is on: alerts are seen on Prometheus' page /alerts and in Grafana only."
_OF_ONES_OWN = (
    " Make a folder whose channels you can set up with `hf-eco2ai stack init --dir FOLDER`, "
    "then say `hf-eco2ai stack up --native --dir FOLDER`."
)
"""For the files of an installation: what is put there is gone with the next update, and they have no secret."""


def _route(channels: Channels, on: list[str]) -> dict[str, Any]:
    return {
        "receiver": NOBODY,
        "group_by": list(GROUPED_BY),
        "routes": [_severity_route(severity, channels, on) for severity in SEVERITIES],
    }


def _severity_route(severity: Severity, channels: Channels, on: list[str]) -> dict[str, Any]:
    """Whoever forgets the severity in a rule of his own is told of a warning: nothing is lost without a word."""
    others = "|".join(other for other in SEVERITIES if other != severity)
    matcher = f'severity!~"{others}"' if severity == "warning" else f'severity="{severity}"'
    wanted = {name: getattr(channels, name) for name in on}
    return {
        "matchers": [matcher],
        **channels.timing[severity].model_dump(),
        "receiver": NOBODY,
        "routes": [_channel_route(name, channel) for name, channel in wanted.items() if severity in channel.severities],
    }


def _channel_route(name: str, channel: Channel) -> dict[str, Any]:
    categories = {"matchers": [f'category=~"{"|".join(channel.categories)}"']} if channel.categories else {}
    return {"receiver": name, **categories, "continue": True}


def _inhibit_rule(rule: Inhibition) -> dict[str, Any]:
    return {
        "source_matchers": [f'alertname="{rule.source}"'],
        "target_matchers": [f'alertname=~"{"|".join(rule.targets)}"'],
        "equal": list(rule.equal),
    }


def _slack(channels: Channels, secrets: Secrets, folder: str) -> _Receiver | _Off:
    if (off := _without_url(channels.slack, secrets, "slack_url", "its incoming webhook")) is not None:
        return off
    config = {
        "api_url_file": f"{folder}/slack_url",
        "channel": channels.slack.channel,
        "color": _template("slack.color"),
        "title": _template("slack.title"),
        "title_link": _template("link"),
        "fallback": _template("slack.title"),
        "text": _template("slack.text"),
        "footer": "hf_eco2ai",
    }
    return _Receiver(_sent(config), "slack_url")


def _email(channels: Channels, secrets: Secrets, folder: str) -> _Receiver | _Off:
    email = channels.email
    missing = [f"`{name}`" for name in ("to", "smarthost", "severities") if not getattr(email, name)]
    if missing:
        return _Off(f"set {' and '.join(missing)} of email in {_SETTINGS}")
    if email.username and secrets.get("smtp_password") is None:
        return _Off(f"put the password of {email.username} into {secrets.path('smtp_password')}, or run `hf-eco2ai stack init`")
    config = {
        "to": ", ".join(email.to),
        "from": email.sender,
        "smarthost": email.smarthost,
        "require_tls": email.require_tls,
        **_login(email, folder),
        "headers": {"Subject": _template("title")},
        "text": _template("email.text"),
        "html": _template("email.html"),
    }
    return _Receiver(_sent(config), "smtp_password" if email.username else None)


def _login(email: Email, folder: str) -> dict[str, str]:
    if not email.username:
        return {}
    return {"auth_username": email.username, "auth_password_file": f"{folder}/smtp_password"}


def _pagerduty(channels: Channels, secrets: Secrets, folder: str) -> _Receiver | _Off:
    name, channel = "pagerduty_key", channels.pagerduty
    if not channel.severities:
        return _unwanted("pagerduty")
    if secrets.get(name) is None:
        return _Off(f"put the routing key of its integration (Events API v2) into {secrets.path(name)}, {_OR_INIT}")
    config = {
        "routing_key_file": f"{folder}/{name}",
        "url": channel.url,
        "client": "hf_eco2ai",
        "client_url": _template("link"),
        "description": _template("title"),
        "severity": _template("pagerduty.severity"),
        "class": "{{ .CommonLabels.category }}",
        "component": "{{ .GroupLabels.alertname }}",
        "group": "{{ .GroupLabels.project_name }}",
        "details": {name: _template(f"pagerduty.{name}") for name in ("firing", "resolved")},
        "links": [
            {"href": "{{ .CommonAnnotations.dashboard_url }}", "text": "Dashboard"},
            {"href": "{{ .CommonAnnotations.runbook_url }}", "text": "Runbook"},
            {"href": _template("silence"), "text": "Silence"},
        ],
    }
    return _Receiver(_sent(config), name)


def _discord(channels: Channels, secrets: Secrets, _folder: str) -> _Receiver | _Off:
    if (off := _without_url(channels.discord, secrets, "discord_url", "its webhook")) is not None:
        return off
    config = {
        "webhook_url": secrets.get("discord_url"),
        "title": _template("discord.title"),
        "message": _template("discord.text"),
    }
    return _Receiver(_sent(config))


def _webhook(channels: Channels, secrets: Secrets, _folder: str) -> _Receiver | _Off:
    if (off := _without_url(channels.webhook, secrets, "webhook_url", "what takes Alertmanager's JSON")) is not None:
        return off
    return _Receiver(_sent({"url": secrets.get("webhook_url")}))


_OR_INIT = "or run `hf-eco2ai stack init`"


def _without_url(channel: Channel, secrets: Secrets, name: str, of: str) -> _Off | None:
    """Why a channel that needs the URL of something is off. Alertmanager would not start with one that is none."""
    if not channel.severities:
        return _unwanted(name.removesuffix("_url"))
    url = secrets.get(name)
    if url is None:
        return _Off(f"put the URL of {of} into {secrets.path(name)}, {_OR_INIT}")
    return None if _is_url(url) else _Off(f"what is in {secrets.path(name)} is no URL; put that of {of} there, {_OR_INIT}")


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        known = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        return False
    return known and text.isprintable() and " " not in text


def _unwanted(name: str) -> _Off:
    return _Off(f"set `severities` of {name} in {_SETTINGS}")


def _template(name: str) -> str:
    return f'{{{{ template "hf_eco2ai.{name}" . }}}}'


def _sent(config: dict[str, Any]) -> dict[str, Any]:
    """Of every channel: what is over is told as well, which is not the default for Slack and mail."""
    return {"send_resolved": True, **config}


_RECEIVERS: dict[str, Callable[[Channels, Secrets, str], _Receiver | _Off]] = {
    "slack": _slack,
    "email": _email,
    "pagerduty": _pagerduty,
    "discord": _discord,
    "webhook": _webhook,
}
_TITLES = {"slack": "Slack", "email": "Email", "pagerduty": "PagerDuty", "discord": "Discord", "webhook": "The webhook"}
