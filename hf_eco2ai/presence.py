"""Whether a thread is still inside the Trainer's method that began a run.

The Trainer calls no event when an exception or Ctrl-C ends training, and a callback is not told what it was called from. So the
begin of a run remembers the frame of `Trainer.train`, and later looks whether that frame is still on the thread's stack.
"""

import sys
import threading
from types import FrameType, TracebackType
from typing import Literal

LeavingReason = Literal["out_of_memory", "exception", "interrupted"]

ENTRY_POINTS = frozenset({"train", "evaluate", "predict"})
TRAINER_MODULE = "transformers.trainer"
HANDLER_MODULE = "transformers.trainer_callback"


class Presence:
    """The frame of the Trainer's `train`, or of an `evaluate` or `predict` outside it, that called; and its thread.

    A Trainer with a loop of its own has no such frame; then it is the one that called Trainer's callback handler. Without
    either (something else calls the callback) the thread counts as present for ever. The frame keeps its locals alive, so
    forget a Presence when its run ends.
    """

    def __init__(self) -> None:
        self._thread_id = threading.get_ident()
        self._frame = _trainer_frame()
        self._missing_since: float | None = None

    @property
    def method(self) -> str:
        """`train`, `evaluate`, `predict`, or the name of whatever called the callback handler; empty if nothing did."""
        return self._frame.f_code.co_name if self._frame is not None else ""

    def is_same_call(self, other: "Presence") -> bool:
        """Whether both were taken within one call of the method, as when `auto_find_batch_size` begins again."""
        return self._frame is not None and self._frame is other._frame  # noqa: SLF001 - of its own class

    def is_here(self) -> bool:
        """Whether the thread is inside the method. Exact for the own thread.

        A look at another thread's stack may catch it in the middle of a return and miss it.
        """
        if self._frame is None:
            return True
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - documented, for just such purposes
        while frame is not None:
            if frame is self._frame:
                return True
            frame = frame.f_back
        return False

    def missing_since(self, now: float) -> float | None:
        """None while the thread is inside; else the instant of the first look that missed it. Trust two looks, not one."""
        if self.is_here():
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now
        return self._missing_since

    def reason_for_leaving(self) -> LeavingReason:
        """Out of memory or Ctrl-C, if the interpreter has already shown such an exception that passed through the method."""
        error = self._shown_error()
        if isinstance(error, KeyboardInterrupt):
            return "interrupted"
        return "out_of_memory" if "OutOfMemory" in type(error).__name__ else "exception"

    def left_by_exception(self) -> bool:
        """Whether the interpreter has shown an exception that passed through the method."""
        return self._shown_error() is not None

    def _shown_error(self) -> BaseException | None:
        error: BaseException | None = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        trace: TracebackType | None = getattr(error, "__traceback__", None)
        while trace is not None:
            if trace.tb_frame is self._frame:
                return error
            trace = trace.tb_next
        return None


def _trainer_frame() -> FrameType | None:
    called_by_handler: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented
    came_from_handler = False
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if frame.f_code.co_name in ENTRY_POINTS and module == TRAINER_MODULE and not _is_part_of_another(frame):
            return frame
        if came_from_handler and module != HANDLER_MODULE and called_by_handler is None:
            called_by_handler = frame
        came_from_handler = came_from_handler or module == HANDLER_MODULE
        frame = frame.f_back
    return called_by_handler


def _is_part_of_another(frame: FrameType) -> bool:
    """Whether the Trainer itself called this method: an evaluation within training, or one of several data sets."""
    caller = frame.f_back
    return frame.f_code.co_name != "train" and caller is not None and caller.f_globals.get("__name__") == TRAINER_MODULE
