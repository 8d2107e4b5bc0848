"""Trainings in processes of their own, cheaply: torch and transformers are imported once, and each training is a fork of that.

Reads a request a line from its standard input and answers it on its standard output (`processes.py` is the other end). A fork
plays one of the scenes below as the main program of its process, so that it ends as any script of a user's does. What it has to
say meanwhile goes to the test by a pipe, with the instant at which it was said.
"""

import contextlib
import gc
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

# Loaded before the forks, so that none of them spends its first second on it.
import hf_eco2ai.devices.nvml
import hf_eco2ai.outputs.app
import hf_eco2ai.outputs.server  # noqa: F401
from hf_eco2ai import CarbonConfig, Eco2AICallback
from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.labels import LabelRules
from tests.trainer.tiny import At, trainer

PACE_SECONDS = 0.05


class Scene:
    """What a scene is given, and how it tells the test what happens."""

    def __init__(self, folder: Path, pipe: int, options: dict[str, Any]) -> None:
        self.folder = folder
        self.options = options
        self._pipe = pipe
        self.callback: Eco2AICallback | None = None

    def say(self, what: str, **more: Any) -> None:
        os.write(self._pipe, json.dumps({"what": what, "at": time.monotonic(), **more}).encode() + b"\n")

    def make_callback(self, **settings: Any) -> Eco2AICallback:
        defaults = {
            "runs_dir": self.folder / "runs",
            "country": "DE",
            "prometheus_port": 0,
            "measurement_interval": 0.1,
            "journal_interval": 1,
            "console_interval": 0,
        }
        self.callback = Eco2AICallback(CarbonConfig(**{**defaults, **self.options.get("settings", {}), **settings}))
        return self.callback

    def trainer(self, *more: TrainerCallback, ours: bool = True) -> Any:
        """A Trainer with our callback between two that note when it begins."""
        measured = [Before(self), self.callback or self.make_callback(), After(self)] if ours else []
        return trainer(self.folder / "out", *measured, *more, **{"max_steps": 60, **self.options.get("arguments", {})})

    def train(self, *more: TrainerCallback, **arguments: Any) -> Any:
        run = self.trainer(*more)
        run.train(**arguments)
        return run


class Before(TrainerCallback):  # type: ignore[misc]
    """Notes the instant before our callback begins its run."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.scene.say("begin")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.scene.say("end")


class After(TrainerCallback):  # type: ignore[misc]
    """Notes the instant after it, with what the run has behind it, and now and then what `/metrics` says."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        callback = self.scene.callback
        assert callback is not None
        snapshot = callback.snapshot
        self.scene.say(
            "begun",
            run_id=snapshot.identity.run_id if snapshot is not None else "",
            parent=snapshot.identity.parent if snapshot is not None else "",
            inherited=sum(totals.total.joules for totals in snapshot.inherited) if snapshot is not None else None,
            inherited_grams=sum(totals.total.grams for totals in snapshot.inherited) if snapshot is not None else None,
            wasted=snapshot.wasted.joules if snapshot is not None else None,
            steps=snapshot.progress.steps if snapshot is not None else None,
            samples=snapshot.progress.samples if snapshot is not None else None,
            global_step=state.global_step,
        )
        self.on_step_end(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        every = self.scene.options.get("render_every")
        callback = self.scene.callback
        if every and callback is not None and callback.snapshot is not None and state.global_step % every == 0:
            text = Exposition(lambda: (callback.snapshot,) if callback.snapshot else (), LabelRules()).render()
            with (self.scene.folder / f"metrics.{os.getpid()}").open("ab", buffering=0) as file:
                file.write(text + b"\0")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.scene.options.get("say_saved"):
            self.scene.say("saved", global_step=state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.scene.say("ended")


class Stop(TrainerCallback):  # type: ignore[misc]
    """Ends training, as a checkpointing handler of a user's would have it, once told so."""

    told = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = control.should_training_stop or self.told


def keep_pace(scene: Scene) -> None:
    """How late this machine lets a thread be that wakes up and has a line on the disk, which is all that a journal does."""
    file = os.open(scene.folder / f"pace.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    never = threading.Event()

    def note() -> None:
        while not never.wait(PACE_SECONDS):
            os.write(file, f"{time.monotonic()}\n".encode())
            os.fdatasync(file)

    threading.Thread(target=note, daemon=True).start()


# Scenes


def endless(scene: Scene) -> None:
    """Trains until it is killed."""
    keep_pace(scene)
    resumes = scene.options.get("resume", False)
    scene.train(At(1, lambda: scene.say("trains")), resume_from_checkpoint=resumes or None)


def plain(scene: Scene) -> None:
    """Trains to its end, and says what came of it."""
    path = scene.options.get("resume") or None
    run = scene.trainer(At(10, lambda: scene.say("here")), ours=scene.options.get("ours", True))
    run.train(resume_from_checkpoint=path)
    digest = hashlib.sha256()
    for parameter in run.model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    scene.say(
        "result",
        losses=[row["loss"] for row in run.state.log_history if "loss" in row],
        weights=digest.hexdigest(),
        global_step=run.state.global_step,
        errors={name: n for name, n in snapshot.errors if n} if (snapshot := _snapshot(scene)) is not None else {},
        state=snapshot.state if snapshot is not None else "",
        joules=snapshot.total.joules if snapshot is not None else 0.0,
        handler=str(signal.getsignal(signal.SIGTERM)),
    )


def _snapshot(scene: Scene) -> Any:
    return None if scene.callback is None else scene.callback.snapshot


def until_told(scene: Scene) -> None:
    """Trains until SIGUSR1."""
    stop = Stop()

    def hear(_number: int, _frame: Any) -> None:
        stop.told = True

    signal.signal(signal.SIGUSR1, hear)
    scene.train(stop, resume_from_checkpoint=scene.options.get("resume"))


def raises(scene: Scene) -> None:
    """An exception in the middle that nobody catches, of the kind that is asked for."""

    def fail() -> None:
        kind = scene.options["error"]
        error: BaseException = {
            "value": ValueError("the user's own"),
            "memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
            "exit": SystemExit(3),
        }[kind]
        raise error

    scene.train(At(10, fail))


def leaves(scene: Scene) -> None:
    """The process is gone at once, without any farewell."""
    scene.train(At(10, lambda: os._exit(0)))


def handled_before(scene: Scene) -> None:
    """The user's own handler for SIGTERM, there before training."""
    stop = Stop()

    def mine(number: int, frame: Any) -> None:
        scene.say("mine", number=number)
        if scene.options["does"] == "exit":
            sys.exit(143)
        stop.told = scene.options["does"] == "stop"

    signal.signal(signal.SIGTERM, mine)
    scene.train(At(10, lambda: scene.say("here")), stop)
    scene.say("after", is_mine=signal.getsignal(signal.SIGTERM) is mine)


def handled_from_the_middle(scene: Scene) -> None:
    """A handler that the user sets in the middle of training, and which calls the one that was there."""
    stop = Stop()
    if scene.options.get("before"):
        signal.signal(signal.SIGTERM, lambda _number, _frame: scene.say("first"))
    former: Any = None

    def mine(number: int, frame: Any) -> None:
        scene.say("mine", number=number)
        stop.told = True
        if scene.options.get("chains", True):
            former(number, frame)

    def install() -> None:
        nonlocal former
        former = signal.signal(signal.SIGTERM, mine)
        scene.say("here")

    def stop_soon() -> None:
        stop.told = bool(scene.options.get("again"))

    scene.train(At(10, install), At(20, stop_soon), stop)
    scene.say("after", is_mine=signal.getsignal(signal.SIGTERM) is mine)
    if scene.options.get("again"):
        stop.told = False
        scene.callback = None
        scene.train(At(10, lambda: scene.say("again")), stop)
        scene.say("after", is_mine=signal.getsignal(signal.SIGTERM) is mine)


def ignored(scene: Scene) -> None:
    """SIGTERM is ignored, as `trap '' TERM` in a shell has it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stop = Stop()

    def ask_and_stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        stop.told = True

    scene.train(At(10, ask_and_stop), stop)
    scene.say("after", is_ignored=signal.getsignal(signal.SIGTERM) == signal.SIG_IGN)


def deletes_the_runs(scene: Scene) -> None:
    """Someone clears the runs folder away in the middle."""

    def delete() -> None:
        runs = scene.folder / "runs"
        for path in runs.iterdir():
            path.unlink()
        runs.rmdir()

    plain_with(scene, At(10, delete))


def freezes(scene: Scene) -> None:
    """The file system of the runs folder stops answering in the middle."""

    def freeze() -> None:
        with contextlib.suppress(FileNotFoundError):
            Path(scene.options["freeze"]).stat()

    plain_with(scene, At(10, freeze))


def marks_often(scene: Scene) -> None:
    """A journal that grows fast."""
    plain_with(scene, *(At(step, lambda: _mark(scene)) for step in range(1, 60)))


def _mark(scene: Scene) -> None:
    assert scene.callback is not None
    run = scene.callback._run
    assert run is not None
    run.mark("train")


def plain_with(scene: Scene, *more: TrainerCallback) -> None:
    """As `plain`, with something that happens."""
    run_trainer = scene.trainer
    scene.trainer = lambda *others, ours=True: run_trainer(*others, *more, ours=ours)  # type: ignore[method-assign]
    plain(scene)


SCENES: dict[str, Callable[[Scene], None]] = {
    scene.__name__: scene
    for scene in (
        endless,
        plain,
        until_told,
        raises,
        leaves,
        handled_before,
        handled_from_the_middle,
        ignored,
        deletes_the_runs,
        marks_often,
        freezes,
    )
}


def serve() -> dict[str, Any] | None:
    """Answer requests until there are no more (None), or until this is a fork, whose scene is returned."""
    pending = b""
    while True:
        while b"\n" not in pending:
            block = os.read(0, 1 << 16)
            if not block:
                return None
            pending += block
        line, _, pending = pending.partition(b"\n")
        request: dict[str, Any] = json.loads(line)
        if "wait" in request:
            answer = {"status": os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])}
        else:
            pid = os.fork()
            if pid == 0:
                return request
            answer = {"pid": pid}
        os.write(1, json.dumps(answer).encode() + b"\n")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trainer(Path(folder))  # Loads what a Trainer loads only when it is made, which starts no thread.
    gc.freeze()  # What is there now is not looked through again when a fork ends.
    request = serve()
    if request is None:
        return
    scene_folder = Path(request["folder"])
    pipe = os.open(request["pipe"], os.O_WRONLY)
    output = os.open(scene_folder / f"output.{os.getpid()}", os.O_WRONLY | os.O_CREAT, 0o600)
    for stream, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(target, stream)
    os.environ.update(request["environ"])
    os.chdir(scene_folder)
    SCENES[request["scene"]](Scene(scene_folder, pipe, request["options"]))


if __name__ == "__main__":
    main()
