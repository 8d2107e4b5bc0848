"""What this repository's own stack folder says, and the rules that it makes."""

from pathlib import Path

from hf_eco2ai.stack.alerts import Category
from hf_eco2ai.stack.channels import Channels
from hf_eco2ai.stack.rules import category_file
from hf_eco2ai.stack.thresholds import Thresholds

ROOT = Path(__file__).parents[2]

THRESHOLDS = Thresholds.read(ROOT / "alerting" / "thresholds.yml")
LINKS = Channels.read(ROOT / "alerting" / "channels.yml").links


def file_of(category: str, made: Category) -> str:
    """The rule file of a category, with the thresholds of this repository."""
    return category_file(category, made(THRESHOLDS), LINKS)


def alert_names(made: Category) -> list[str]:
    """Names of a category's alerts."""
    return [alert.name for alert in made(THRESHOLDS)]
