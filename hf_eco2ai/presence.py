"""Whether a thread is still inside the Trainer's method that began a run.

The Trainer calls no event when an exception or Ctrl-C ends training, and a callback is not told what it was called from. So the
begin of a run remembers the frame of `Trainer.train`, and later looks whether that frame is still on the thread's stack.
"""

import sys
import threading
from types import FrameType, TracebackType

from hf_eco2ai.records import FailedStepReason

ENTRY_POINTS = frozenset({"train", "evaluate", "predict"})
TRAINER_MODULE = "transformers.trainer"

MISSES_BEFORE_GONE = 2
"""A look at another thread's stack may catch it in the middle of a return; two in a row may not."""


class Presence:
    """The innermost frame of a Trainer's `train`, `evaluate` or `predict` that called, and its thread.

    Without such a frame (something else calls the callback) the thread counts as present for ever. The frame keeps its locals
    alive, so forget a Presence when its run ends.
    """

    def __init__(self) -> None:
        self._thread_id = threading.get_ident()
        self._frame = _trainer_frame()
        self._misses = 0

    @property
    def method(self) -> str:
        """`train`, `evaluate`, `predict`, or empty."""
        return self._frame.f_code.co_name if self._frame is not None else ""

    @property
    def is_this_thread(self) -> bool:
        """Whether the run was begun by the thread that asks."""
        return threading.get_ident() == self._thread_id

    def is_same_call(self, other: "Presence") -> bool:
        """Whether both were taken within one call of the method, as when `auto_find_batch_size` begins again."""
        return self._frame is not None and self._frame is other._frame  # noqa: SLF001 - of its own class

    def lasts(self) -> bool:
        """Whether the thread is still inside the method. May be asked from any thread, now and then."""
        if self._frame is None:
            return True
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - documented, for just such purposes
        while frame is not None:
            if frame is self._frame:
                self._misses = 0
                return True
            frame = frame.f_back
        self._misses += 1
        return self._misses < MISSES_BEFORE_GONE

    def reason_for_leaving(self) -> FailedStepReason:
        """Out of memory, if the interpreter has already shown such an exception that passed through the method."""
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        trace: TracebackType | None = getattr(error, "__traceback__", None)
        while trace is not None:
            if trace.tb_frame is self._frame:
                return "out_of_memory" if "OutOfMemory" in type(error).__name__ else "exception"
            trace = trace.tb_next
        return "exception"


def _trainer_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented
    while frame is not None:
        if frame.f_code.co_name in ENTRY_POINTS and frame.f_globals.get("__name__") == TRAINER_MODULE:
            return frame
        frame = frame.f_back
    return None
