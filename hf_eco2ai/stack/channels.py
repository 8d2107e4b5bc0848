"""alerting/channels.yml: who is told what, and how often. Secrets are not in it; they are files in secrets/."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack import documents
from hf_eco2ai.stack.alerts import Severity

Category = Literal["carbon", "energy", "training", "gpu", "cost", "system"]
Duration = Annotated[str, Field(pattern=r"^(\d+(ms|s|m|h|d|w|y))+$")]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/]\S*$"), AfterValidator(lambda url: url.rstrip("/"))]
"""Without a slash at its end, since a path is put behind it."""
Address = Annotated[str, Field(pattern=r"^[^\s,<>{}]+@[^\s,<>{}]+$")]
"""Of mail. Braces would be a template to Alertmanager."""
Smarthost = Annotated[str, Field(pattern=r"^(\S+:\d{1,5})?$")]
Addresses = Annotated[tuple[Address, ...], BeforeValidator(lambda to: (to,) if isinstance(to, str) else to)]
"""A list, or just one."""

SEVERITIES: tuple[Severity, ...] = get_args(Severity)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Links(_Strict):
    """Where links in messages lead."""

    grafana: Url
    runbooks: Url


class Timing(_Strict):
    """How long Alertmanager gathers alerts of one group, tells of new ones, and repeats itself."""

    group_wait: Duration
    group_interval: Duration
    repeat_interval: Duration


class Channel(_Strict):
    """Which alerts it gets. Without categories: those of all."""

    severities: tuple[Severity, ...]
    categories: tuple[Category, ...] = ()


class Slack(Channel):
    """The webhook's URL is secrets/slack_url."""

    channel: str = ""
    """Legacy webhooks may be told a channel; those of apps have their own."""


class Email(Channel):
    """The password, if the server wants one, is secrets/smtp_password."""

    to: Addresses = ()
    """Nobody: the channel is off. All of them get the same mail."""
    sender: Address = "hf-eco2ai@localhost"
    smarthost: Smarthost = ""
    """host:port of the SMTP server. Port 465 speaks TLS from the first byte, others after STARTTLS."""
    username: str = ""
    require_tls: bool = True


class PagerDuty(Channel):
    """The integration's routing key (Events API v2) is secrets/pagerduty_key."""

    url: Url = "https://events.pagerduty.com/v2/enqueue"


class Discord(Channel):
    """The webhook's URL is secrets/discord_url."""


class Webhook(Channel):
    """The URL is secrets/webhook_url. It gets Alertmanager's own JSON."""


class Channels(_Strict):
    """The whole file."""

    links: Links
    timing: dict[Severity, Timing]
    slack: Slack
    email: Email
    pagerduty: PagerDuty
    discord: Discord
    webhook: Webhook

    @field_validator("timing")
    @classmethod
    def _of_each_severity(cls, timing: dict[Severity, Timing]) -> dict[Severity, Timing]:
        if missing := [severity for severity in SEVERITIES if severity not in timing]:
            raise ValueError(f"should say how often {' and '.join(missing)} alerts are told")
        return timing

    @classmethod
    def read(cls, path: Path) -> "Channels":
        """Raises ConfigError, which names the line that is wrong."""
        found = documents.read(path)
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors(include_input=False)
            )
            raise ConfigError(f"{path}: {problems}") from None
