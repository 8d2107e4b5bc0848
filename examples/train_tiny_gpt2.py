"""Trains a tiny GPT-2 on the Python standard library's own sources, with the callback on. `make demo` runs it.

Nothing is downloaded: the model is built from a config, the text is what every Python brings along, and a token is a byte.
"""

import argparse
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from hf_eco2ai import CarbonConfig, Eco2AICallback

EXAMPLE_PRICE_PER_KWH = 0.30
EXAMPLE_PRICE_PER_GPU_HOUR = 2.50


class Sources(torch.utils.data.Dataset):  # type: ignore[misc]
    """Blocks of bytes of the `.py` files in a folder."""

    def __init__(self, files: list[Path], block: int) -> None:
        text = b"".join(file.read_bytes() for file in files)
        whole = len(text) // block * block
        self._blocks = torch.frombuffer(bytearray(text[:whole]), dtype=torch.uint8).long().view(-1, block)

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._blocks[index], "labels": self._blocks[index]}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps (default: 300)")
    parser.add_argument("--simulated-gpus", type=int, default=0, help="made-up GPUs to measure (default: none)")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder for the checkpoint")
    parser.add_argument(
        "--stack",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="start Prometheus and Alertmanager first, where they are installed, and leave them running (default: no)",
    )
    return parser.parse_args()


def stack(*arguments: str) -> bool:
    """`hf-eco2ai stack ...`; whether it went well."""
    command = [sys.executable, "-c", "from hf_eco2ai.cli import main; main()", "stack", *arguments]
    return subprocess.run(command, check=False).returncode == 0


def start_stack() -> bool:
    """Whether there is a stack that shows the run. Training needs none, so what goes wrong is said and no more."""
    if not (shutil.which("prometheus") and (shutil.which("prometheus-alertmanager") or shutil.which("alertmanager"))):
        print("To see it in Prometheus too, with alerts: apt-get install prometheus prometheus-alertmanager")
        return False
    return stack("up", "--native", "--scrape-interval", "1s")


def main() -> None:
    options = parse_arguments()
    shown = options.stack and start_stack()
    torch.manual_seed(0)
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    block = 128
    train, evaluation = Sources(files[4:], block), Sources(files[:4], block)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=256, n_positions=block, n_embd=128, n_layer=4, n_head=4, bos_token_id=0, eos_token_id=0)
    )
    callback = Eco2AICallback(
        CarbonConfig(
            project_name="demo",
            experiment_name="simulated GPUs" if options.simulated_gpus else "",
            model_name="tiny-gpt2",
            simulated_gpus=options.simulated_gpus,
            # Examples, so that the cost families appear; put your own contract's prices here.
            electricity_price_per_kwh=EXAMPLE_PRICE_PER_KWH,
            gpu_price_per_hour=EXAMPLE_PRICE_PER_GPU_HOUR if options.simulated_gpus else None,
        )
    )
    arguments = TrainingArguments(
        output_dir=str(options.output),
        max_steps=options.steps,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=64,
        learning_rate=1e-3,
        logging_steps=50,
        eval_strategy="steps",
        eval_steps=max(1, options.steps // 2),
        save_strategy="steps",
        save_steps=options.steps,
        save_total_limit=1,
        include_num_input_tokens_seen=True,
        report_to="none",
        use_cpu=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=train, eval_dataset=evaluation, callbacks=[callback])
    print(f"Training on {len(train):,} blocks of {block} bytes from {len(files)} files of the Python standard library.")
    trainer.train()
    print(f"Checkpoint in {options.output}. The prices are examples; `hf-eco2ai config` lists every setting.")
    if shown:
        print("\nWhat the monitoring stack has seen of it (`hf-eco2ai stack status`):\n", flush=True)
        stack("status")
        print("\nIt goes on running, for you to look at the pages above; `hf-eco2ai stack down` ends it.")


if __name__ == "__main__":
    main()
