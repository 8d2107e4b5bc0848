"""Label values that a Prometheus can live with: clean, short, and few."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

MOST_CHARACTERS = 128
MOST_SEEN = 4096
"""So many characters of a value are looked at; what follows cannot matter but to whoever wants us to be slow."""
MOST_FOLDED = 1024
"""Characters of a model's name that is folded; longer than any path of one."""

CLEANED_VALUES = 65_536
"""Label values that are remembered as cleaned: a thousand runs have some 20,000."""
LONG = 256
LONG_VALUES = 64
"""Of those with more characters, which have no business there, only so many are remembered."""

OTHER = "other"
_DIGEST_BYTES = 16
_DIGEST = re.compile(r"~[0-9a-f]{32}$")

_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: control, format (right-to-left marks), surrogate, private, unassigned, line and paragraph separator."""

_CHECKPOINT = re.compile(r"[-_/\\.](checkpoint|ckpt|step|epoch|global_step|iter)[-_]?\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class LabelRules:
    """How label values are kept in bounds; each field is the setting of the same name."""

    max_projects: int = 100
    aggregate_similar_models: bool = True
    label_cleanup_enabled: bool = True
    run_label: bool = True

    def clean(self, value: str) -> str:
        """Without characters that cannot be printed, and at most 128 characters long."""
        if not self.label_cleanup_enabled:
            return value.encode("utf-8", "replace").decode()
        printable = "".join(c for c in value[:MOST_SEEN] if unicodedata.category(c) not in _UNPRINTABLE)
        return printable.strip()[:MOST_CHARACTERS].rstrip()

    def model(self, value: str) -> str:
        """A model's name, folded if `aggregate_similar_models` says so."""
        return self.clean(fold_model(value) if self.aggregate_similar_models and len(value) <= MOST_FOLDED else value)

    def identity(self, value: str) -> str:
        """A name that tells runs apart: where it has to be cut or cleaned, a digest keeps it different from others."""
        clean = self.clean(value)
        if clean == value and clean and not _DIGEST.search(value):
            return clean
        digest = hashlib.blake2s(value.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
        return f"{clean[: MOST_CHARACTERS - len(digest) - 1]}~{digest}"

    def projects(self, names: Iterable[str], before: Mapping[str, str] | None = None) -> dict[str, str]:
        """The label of each project: its clean name for the first `max_projects`, `other` for the rest.

        A project keeps the label that it had `before`, `other` too, for as long as it is there, so that no series changes its
        name meanwhile.
        """
        present = dict.fromkeys(names)
        labels = {name: label for name, label in (before or {}).items() if name in present}
        taken = set(labels.values()) - {OTHER}
        for name in present:
            if name not in labels:
                label = self.clean(name)
                labels[name] = label if label in taken or len(taken) < self.max_projects else OTHER
                taken |= {labels[name]} - {OTHER}
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


class Cleaned(dict[str, str]):
    """Label values as they stand on a line. Cleaning one costs 20 µs, and they repeat on every series of every scrape."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        super().__init__()
        self._clean = clean
        self._long: dict[str, str] = {}

    def __missing__(self, value: str) -> str:
        known, most = (self, CLEANED_VALUES) if len(value) <= LONG else (self._long, LONG_VALUES)
        if value not in known:
            if len(known) >= most:
                known.clear()
            known[value] = self._clean(value).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        return known[value]


class Cleaning:
    """The cleaned values of all labels."""

    def __init__(self, rules: LabelRules) -> None:
        self._special = {"model_name": Cleaned(rules.model), "run_id": Cleaned(rules.identity)}
        self._other = Cleaned(rules.clean)

    def of(self, label: str) -> Cleaned:
        """Those of this label."""
        return self._special.get(label, self._other)
