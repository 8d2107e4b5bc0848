"""Label values that a Prometheus can live with."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.outputs.labels import LabelRules, fold_model

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
