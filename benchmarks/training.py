"""What the callback costs a Trainer. Each figure in a fresh process."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = tuple[str, float, str, float]

ROOT = Path(__file__).parents[1]

PREPARE = """
import json, time, resource, sys, tempfile, warnings
warnings.simplefilter("ignore")
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
class Data(torch.utils.data.Dataset):
    def __len__(self): return 203
    def __getitem__(self, index): return {"input_ids": torch.full((16,), index % 100), "labels": torch.full((16,), index % 100)}
def make_trainer(*callbacks, **arguments):
    config = GPT2Config(vocab_size=100, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    quiet = dict(report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no", logging_strategy="no")
    options = TrainingArguments(tempfile.mkdtemp(), **{**quiet, **arguments})
    return Trainer(model=GPT2LMHeadModel(config), args=options, train_dataset=Data(), callbacks=list(callbacks))
SETTINGS = dict(simulated_gpus=8, country="DE", console_interval=0, prometheus_port=0)
"""
"""Nothing of ours is imported here, so that each figure can begin with our imports."""

STEP = """
from hf_eco2ai import CarbonConfig, Eco2AICallback
from transformers.trainer_callback import CallbackHandler
callback = Eco2AICallback(CarbonConfig(**SETTINGS))
trainer = make_trainer(callback)
state, control, args = trainer.state, trainer.control, trainer.args
state.max_steps = 10**9
def handler(*callbacks):
    return CallbackHandler(list(callbacks), trainer.model, None, None, None)
def step(h):
    h.on_step_begin(args, state, control)
    h.on_pre_optimizer_step(args, state, control)
    h.on_optimizer_step(args, state, control)
    state.global_step += 1
    h.on_step_end(args, state, control)
def median(h):
    durations = []
    for _ in range(20000):
        before = time.perf_counter()
        step(h)
        durations.append(time.perf_counter() - before)
    durations.sort()
    return durations[len(durations) // 2]
ours, none = handler(callback), handler()
ours.on_train_begin(args, state, control)
ours.on_epoch_begin(args, state, control)
pairs = [median(ours) - median(none) for _ in range(5)]
ours.on_train_end(args, state, control)
print(json.dumps(sorted(pairs)[2] * 1e6))
"""

START_STOP = """
trainer = make_trainer()
state, control, args = trainer.state, trainer.control, trainer.args
before = time.process_time()
from hf_eco2ai import CarbonConfig, Eco2AICallback
callback = Eco2AICallback(CarbonConfig(**SETTINGS))
callback.on_train_begin(args, state, control, model=trainer.model)
import http.client, urllib.parse
url = urllib.parse.urlsplit(callback.metrics_url)
connection = http.client.HTTPConnection(url.hostname, url.port)
connection.request("GET", "/metrics")
connection.getresponse().read()
connection.close()
callback.on_train_end(args, state, control)
print(json.dumps(time.process_time() - before))
"""

MEMORY = """
callbacks = []
if {with_us}:
    from hf_eco2ai import CarbonConfig, Eco2AICallback
    callbacks = [Eco2AICallback(CarbonConfig(**SETTINGS))]
trainer = make_trainer(*callbacks, num_train_epochs=20)
trainer.train()
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""


def in_fresh_process(code: str) -> Any:
    """The last line that the code prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", PREPARE + code], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def step_cost() -> Iterator[Row]:
    """All events of one optimizer step through the Trainer's own handler, with the callback less without."""
    yield "callback per optimizer step, median", in_fresh_process(STEP), "µs", 10.0


def start_and_stop() -> Iterator[Row]:
    """CPU time from importing hf_eco2ai to the end of the run, one scrape and all imports included."""
    values = [in_fresh_process(START_STOP) for _ in range(5)]
    yield "start and stop, CPU of all threads, imports and one scrape included, median", statistics.median(values), "s", 0.3


def memory() -> Iterator[Row]:
    """Peak resident memory of a training with the callback less without, in pairs."""
    pairs = [in_fresh_process(MEMORY.format(with_us=True)) - in_fresh_process(MEMORY.format(with_us=False)) for _ in range(3)]
    yield "resident memory beyond the same training without us, median of pairs", statistics.median(pairs), "MB", 50.0
