"""A real Trainer on a model so small that a run takes a second."""

import threading
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from hf_eco2ai import CarbonConfig, Eco2AICallback

SAMPLES = 203
"""Not a multiple of the batch, so that the last batch of an epoch is a short one."""

BATCH = 8
STEPS_PER_EPOCH = 26


class Data(torch.utils.data.Dataset):  # type: ignore[misc]
    """The same random tokens every time."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.randint(0, 100, (16,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens}


def model() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=100, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    )


def config(**settings: Any) -> CarbonConfig:
    """Quiet, on any free port, in Germany, with two made-up GPUs, measured ten times a second."""
    defaults: dict[str, Any] = {
        "prometheus_port": 0,
        "country": "DE",
        "simulated_gpus": 2,
        "measurement_interval": 0.1,
        "console_interval": 0,
    }
    return CarbonConfig(**{**defaults, **settings})


def trainer(folder: Path, *callbacks: TrainerCallback, data: Any = None, network: Any = None, **arguments: Any) -> Any:
    """A Trainer on the CPU that trains one epoch unless told otherwise."""
    defaults: dict[str, Any] = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "logging_steps": 5,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 7,
    }
    return Trainer(
        model=network if network is not None else model(),
        args=TrainingArguments(str(folder), **{**defaults, **arguments}),
        train_dataset=data if data is not None else Data(),
        eval_dataset=Data(),
        callbacks=list(callbacks),
    )


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("hf_eco2ai")]


def wait_until_left(callback: Eco2AICallback) -> None:
    """Until the sampler has noticed that training was left, and has closed everything."""
    for thread in our_threads():
        thread.join(30)
    assert our_threads() == []
    assert callback.metrics_url is None


class At(TrainerCallback):  # type: ignore[misc]
    """Does something once, at the end of a step."""

    def __init__(self, step: int, what: Any) -> None:
        self.step = step
        self.what = what

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.step = -1
            self.what()


def fail_now() -> None:
    """An error of the user's own."""
    _ = 1 / 0
