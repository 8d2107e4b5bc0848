"""Label values that a Prometheus can live with."""

import hashlib
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.outputs.labels import (
    CLEANED_VALUES,
    LONG,
    LONG_VALUES,
    MOST_CHARACTERS,
    MOST_SEEN,
    Cleaned,
    LabelRules,
    fold_model,
)

RULES = LabelRules()

RIGHT_TO_LEFT_OVERRIDE, ZERO_WIDTH_SPACE, BYTE_ORDER_MARK, LINE_SEPARATOR = "\u202e", "\u200b", "\ufeff", "\u2028"


@pytest.mark.parametrize(
    ("hostile", "clean"),
    [
        ("plain", "plain"),
        ("Größe · 日本語 · 🌱", "Größe · 日本語 · 🌱"),
        ("two\nlines", "twolines"),
        ("carriage\r\nreturn", "carriagereturn"),
        ("tab\tbell\a null\0 escape\x1b[31m", "tabbell null escape[31m"),
        (f"invoice{RIGHT_TO_LEFT_OVERRIDE}fdp.exe", "invoicefdp.exe"),
        (f"{BYTE_ORDER_MARK}a{ZERO_WIDTH_SPACE}b", "ab"),
        ("  around  ", "around"),
        ('quote " backslash \\ brace } equals =', 'quote " backslash \\ brace } equals ='),
        ("lone surrogate \ud800", "lone surrogate"),
        ("\n", ""),
    ],
)
def test_a_hostile_value_comes_out_clean(hostile: str, clean: str) -> None:
    assert RULES.clean(hostile) == clean


def test_ten_kilobytes_come_out_as_128_characters() -> None:
    assert RULES.clean("a" * 10_240) == "a" * 128


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=400))
def test_whatever_comes_in_is_short_and_printable_and_can_be_encoded(value: str) -> None:
    clean = RULES.clean(value)

    assert len(clean) <= 128
    assert not any(unicodedata.category(character).startswith("C") for character in clean)
    assert clean.encode("utf-8").decode() == clean
    assert RULES.clean(clean.strip()) == clean.strip()


@pytest.mark.parametrize("separator", [LINE_SEPARATOR, "\u2029", "\x85", "\v", "\f", "\x1c"])
def test_a_label_is_one_line(separator: str) -> None:
    assert len(RULES.clean(f"one{separator}two").splitlines()) == 1


def test_without_cleanup_a_value_stays_as_it_is_but_can_be_encoded() -> None:
    rules = LabelRules(label_cleanup_enabled=False)

    assert rules.clean("two\nlines " + "a" * 200) == "two\nlines " + "a" * 200
    assert rules.clean("lone \ud800").encode("utf-8")


# Models


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("microsoft/phi-2", "microsoft/phi-2"),
        ("./runs/llama/checkpoint-500", "llama"),
        ("/data/llama", "llama"),
        ("/data/llama/", "llama"),
        ("~/models/llama", "llama"),
        ("../llama", "llama"),
        ("/data/runs/llama/checkpoint-500/", "llama"),
        ("/data/llama/global_step200/checkpoint-500", "llama"),
        ("C:\\models\\llama", "llama"),
        ("C:\\models\\llama\\checkpoint-12", "llama"),
        ("meta-llama/Llama-3.1-8B/checkpoint-1000", "meta-llama/Llama-3.1-8B"),
        ("llama-checkpoint-10", "llama"),
        ("llama_step_1000", "llama"),
        ("llama-epoch3", "llama"),
        ("LLaMA-Checkpoint-10", "LLaMA"),
        ("gpt2-xl", "gpt2-xl"),
        ("opt-125m", "opt-125m"),
        ("BertForSequenceClassification", "BertForSequenceClassification"),
    ],
)
def test_checkpoints_and_local_copies_of_a_model_fold_into_its_name(name: str, folded: str) -> None:
    assert fold_model(name) == folded


@pytest.mark.parametrize("name", ["./checkpoint-500", "/checkpoint-500", "checkpoint-500", "/a//checkpoint-500"])
def test_a_models_name_never_folds_to_nothing(name: str) -> None:
    assert fold_model(name).strip("./\\")


def test_a_models_name_is_folded_only_if_wanted() -> None:
    assert LabelRules(aggregate_similar_models=True).model("/data/llama") == "llama"
    assert LabelRules(aggregate_similar_models=False).model("/data/llama") == "/data/llama"


# Projects


def test_projects_beyond_the_limit_are_called_other() -> None:
    labels = LabelRules(max_projects=2).projects(["a", "b", "c", "a", "d", "b"])

    assert labels == {"a": "a", "b": "b", "c": "other", "d": "other"}


def test_projects_that_look_alike_share_one_label() -> None:
    labels = LabelRules(max_projects=2).projects(["a", "a\n", " a ", "b"])

    assert labels == {"a": "a", "a\n": "a", " a ": "a", "b": "b"}


@settings(deadline=None)
@given(st.lists(st.text(max_size=5), max_size=30), st.integers(1, 10))
def test_there_are_never_more_project_labels_than_the_limit_and_other(names: list[str], limit: int) -> None:
    labels = LabelRules(max_projects=limit).projects(names)

    assert set(labels) == set(names)
    assert len(set(labels.values()) - {"other"}) <= limit


def test_a_project_keeps_its_label_when_an_older_one_leaves_and_so_does_one_that_came_too_late() -> None:
    rules = LabelRules(max_projects=2)
    first = rules.projects(["a", "b", "late"])
    assert first == {"a": "a", "b": "b", "late": "other"}
    second = rules.projects(["late", "b", "new"], first)
    assert second == {"b": "b", "late": "other", "new": "new"}
    assert rules.projects(["late", "newer", "b"], second) == {"b": "b", "late": "other", "newer": "newer"}


def test_a_project_that_was_away_comes_back_like_a_new_one() -> None:
    rules = LabelRules(max_projects=1)
    labels = rules.projects(["a", "late"])
    labels = rules.projects(["a"], labels)
    assert rules.projects(["late"], labels) == {"late": "late"}


def test_a_project_that_is_called_other_takes_nobodys_place() -> None:
    rules = LabelRules(max_projects=2)
    labels = rules.projects(["other", "a", "b", "c"])
    assert labels == {"other": "other", "a": "a", "b": "b", "c": "other"}
    assert rules.projects(["other", "a", "b", "c"], labels) == labels


@settings(deadline=None)
@given(st.lists(st.lists(st.text("abc\u200b", max_size=2), max_size=8), max_size=8), st.integers(1, 4))
def test_over_any_time_a_project_has_one_label_and_there_are_never_too_many(visits: list[list[str]], limit: int) -> None:
    rules, labels = LabelRules(max_projects=limit), dict[str, str]()
    for present in visits:
        now = rules.projects(present, labels)
        assert set(now) == set(present)
        assert {name: label for name, label in labels.items() if name in now}.items() <= now.items()
        assert len(set(now.values()) - {"other"}) <= limit
        labels = now


# Names that tell runs apart


def digest(value: str) -> str:
    return hashlib.blake2s(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@pytest.mark.parametrize("name", ["0123456789ab", "Größe · 日本語 · 🌱", "a~b", "x" * 128])
def test_an_identity_that_is_clean_stays_as_it_is(name: str) -> None:
    assert RULES.identity(name) == name


@pytest.mark.parametrize(
    ("name", "begin"),
    [("", ""), ("\n", ""), ("a\n", "a"), (" a", "a"), (f"a{ZERO_WIDTH_SPACE}", "a"), ("x" * 10_240, "x" * 95), ("\ud800", "")],
)
def test_an_identity_that_has_to_be_cleaned_or_cut_says_so(name: str, begin: str) -> None:
    assert RULES.identity(name) == f"{begin}~{digest(name)}"
    assert len(RULES.identity(name)) <= MOST_CHARACTERS


def test_nobody_can_take_the_identity_that_another_got_by_being_cleaned() -> None:
    victim = f"a{ZERO_WIDTH_SPACE}"
    forged = RULES.identity(victim)
    assert RULES.identity(forged) not in {forged, RULES.identity(victim)}


@pytest.mark.parametrize("rules", [RULES, LabelRules(label_cleanup_enabled=False)], ids=["cleaned", "as they are"])
@settings(deadline=None)
@given(st.sets(st.text(st.characters(exclude_categories=()), max_size=3) | st.text("a \u200b\ud800\udfff~", max_size=3)))
def test_identities_stay_apart(rules: LabelRules, names: set[str]) -> None:
    shown = {rules.identity(name) for name in names}
    shown |= {rules.identity(name) for name in shown}
    assert len(shown) == len(names | {rules.identity(name) for name in names})


# Names that somebody has made to cost us time


def test_of_a_name_without_end_only_the_beginning_is_looked_at() -> None:
    assert RULES.clean(ZERO_WIDTH_SPACE * MOST_SEEN + "a") == ""
    assert RULES.clean(ZERO_WIDTH_SPACE * (MOST_SEEN - 1) + "ab") == "a"


def test_a_model_that_is_longer_than_any_path_is_not_folded() -> None:
    """To take off a million suffixes, one at a time, would take until tomorrow."""
    name = "llama" + "-step1" * 1_000_000
    assert RULES.model(name) == name[:MOST_CHARACTERS]
    assert RULES.model("llama" + "-step1" * 100) == "llama"


def test_what_has_been_cleaned_is_clean() -> None:
    edge = "a" * 127 + " b"
    assert RULES.clean(edge) == "a" * 127
    assert RULES.clean(RULES.clean(edge)) == RULES.clean(edge)


def test_label_values_are_remembered_but_never_too_many_nor_too_long() -> None:
    cleaned = Cleaned(RULES.clean)
    for number in range(CLEANED_VALUES + 10):
        assert cleaned[f"name {number}"] == f"name {number}"
    assert len(cleaned) <= CLEANED_VALUES
    for number in range(3 * LONG_VALUES):
        value = f"{number}" + "x" * LONG
        assert cleaned[value] == value[:128]
        assert value not in cleaned
    assert len(cleaned._long) <= LONG_VALUES


def test_a_value_stands_on_a_line_without_what_would_end_it() -> None:
    cleaned = Cleaned(LabelRules(label_cleanup_enabled=False).clean)
    assert cleaned['a"b\\c\nd'] == r"a\"b\\c\nd"
