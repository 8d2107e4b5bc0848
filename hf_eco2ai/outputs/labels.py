"""Label values that a Prometheus can live with: clean, short, and few."""

import re
import unicodedata
from dataclasses import dataclass

MOST_CHARACTERS = 128
OTHER = "other"

_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: control, format (right-to-left marks), surrogate, private, unassigned, line and paragraph separator."""

_CHECKPOINT = re.compile(r"[-_/\\.](checkpoint|ckpt|step|epoch|global_step|iter)[-_]?\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class LabelRules:
    """How label values are kept in bounds; each field is the setting of the same name."""

    max_projects: int = 100
    aggregate_similar_models: bool = True
    label_cleanup_enabled: bool = True

    def clean(self, value: str) -> str:
        """Without characters that cannot be printed, and at most 128 characters long."""
        if not self.label_cleanup_enabled:
            return value.encode("utf-8", "replace").decode()
        printable = "".join(c for c in value if unicodedata.category(c) not in _UNPRINTABLE)
        return printable.strip()[:MOST_CHARACTERS]

    def model(self, value: str) -> str:
        """A model's name, folded if `aggregate_similar_models` says so."""
        return self.clean(fold_model(value) if self.aggregate_similar_models else value)

    def projects(self, names: "list[str]") -> dict[str, str]:
        """The label of each project: its clean name for the first `max_projects`, `other` for the rest."""
        labels: dict[str, str] = {}
        for name in names:
            label = self.clean(name)
            labels[name] = label if label in labels.values() or len(set(labels.values())) < self.max_projects else OTHER
        return labels


def fold_model(name: str) -> str:
    """The base name of a model: checkpoints and local copies of one model are one label.

    `./runs/llama/checkpoint-500` and `/data/llama` become `llama`; a hub name such as `meta-llama/Llama-3.1-8B` stays, except
    for a checkpoint's suffix.
    """
    folded = name.strip().rstrip("/\\")
    while _CHECKPOINT.search(folded) and _CHECKPOINT.sub("", folded).strip("./\\~"):
        folded = _CHECKPOINT.sub("", folded).rstrip("/\\")
    is_path = folded.startswith((".", "/", "~", "\\")) or "\\" in folded or folded.count("/") > 1
    return re.split(r"[/\\]", folded)[-1] if is_path else folded
