"""Requests of many users in one forward: a work-conserving scheduler in front of one device thread.

Nothing waits for company: the next batch is whatever queued while the last one ran, and what is too small to be worth
the way to the device thread runs where it is asked, while nothing else does. A product of matrices rounds
differently for another number of rows, so rows of deterministic requests run in batches of one fixed size, filled
up with copies: then a row has the same bits in every slot and beside anyone.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import torch

from fulcrum.domain.errors import (
    FulcrumError,
    InvalidSettings,
    Overloaded,
    PayloadTooLarge,
    ServiceUnavailable,
)
from fulcrum.engine import cores
from fulcrum.engine.batch_queue import Item, Piece, Rows, Run, Stage, WaitingRows
from fulcrum.engine.device_memory import empty_cache, is_fatal, is_out_of_memory, out_of_memory
from fulcrum.engine.forwards import BUCKETS, MAX_ROWS, Forwards
from fulcrum.engine.scopes import RequestScope, current_scope

T = TypeVar("T")

_MAX_QUEUE_BYTES = 1 << 30


@dataclass(frozen=True)
class BatcherCounts:
    """What the device thread did so far."""

    batches: int
    rows: int
    padding_rows: int
    retried_batches: int  # ran again request by request, because one of them failed
    out_of_memory: int
    dropped: int  # requests that were cancelled or late before they ran
    sizes: dict[int, int]  # how many forwards had how many rows


class Batcher:
    """Runs rows on one device thread. Safe from several threads; `close` it, or use it as a context manager.

    `max_rows` bounds a forward, `bucket` is the size of deterministic ones (None: what suits `device`),
    `max_queue_bytes` bounds what waits. A stage in which `bucket` rows do not have the same bits in every slot gets
    a larger one. `threads`: intra-op threads of the device thread (None: those of the thread which makes the
    batcher). `on_fatal` is called, on the device thread, after an error that leaves the device unusable; all requests
    then fail with ServiceUnavailable.
    """

    def __init__(
        self,
        device: str = "cpu",
        *,
        max_rows: int | None = None,
        bucket: int | None = None,
        max_queue_bytes: int = _MAX_QUEUE_BYTES,
        threads: int | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> None:
        kind = torch.device(device).type
        max_rows = MAX_ROWS.get(kind, MAX_ROWS["cuda"]) if max_rows is None else max_rows
        bucket = BUCKETS.get(kind, BUCKETS["cuda"]) if bucket is None else bucket
        for name, value in (("max_rows", max_rows), ("bucket", bucket), ("max_queue_bytes", max_queue_bytes)):
            if value < 1:
                raise InvalidSettings(f"{name} is {value}: it must be >= 1")
        self.max_queue_bytes = max_queue_bytes
        self._forwards = Forwards(max_rows, bucket)
        self._on_fatal = on_fatal
        self._threads = torch.get_num_threads() if threads is None else threads
        self._changed = threading.Condition()
        self._waiting = WaitingRows()
        self._running: list[Piece] = []
        self._here: threading.Thread | None = None  # a caller's that runs its own rows
        self._on_cpu = kind == "cpu"
        self._queued_rows = self._queued_bytes = self._running_rows = 0
        self._bytes_per_s = 0.0
        self._last_progress = time.monotonic()
        self._closing: str | None = None
        self._retried = self._ooms = self._dropped = 0
        self._thread = threading.Thread(target=self._work, name="fulcrum-device", daemon=True)
        self._thread.start()

    def submit(self, name: Hashable, rows: Rows, run: Run, product: int | None = None) -> Rows:
        """`run(rows)`, computed together with other requests' rows of the same `name`, shapes and mode.

        Blocks. `run` must treat rows independently, and `name` must identify what it computes, weights included.
        `product`: multiplications for one row in the widest product of matrices, where that is known; small work may
        run in the calling thread.
        Raises PayloadTooLarge, Overloaded, ServiceUnavailable, OutOfMemory, Cancelled, DeadlineExceeded, and what
        `run` raises for this request's rows.
        """
        scope = current_scope()
        if rows[0].shape[0] == 0 or self._is_running_thread():
            return run(rows)
        item = Item(Stage.of(name, rows, scope.deterministic), rows, run, scope)
        self._finish(item, None if product is None else product * item.n_rows)
        parts = [item.parts[start] for start in sorted(item.parts)]
        if len(parts) == 1:
            # A view would keep the other requests' rows in memory for as long as these live.
            return tuple(_own(t) for t in parts[0])
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def run_alone(self, work: Callable[[], T], product: int | None = None) -> T:
        """`work()` on the device thread, sharing a forward with nobody, in its user's turn. Raises as `submit`.

        `product`: multiplications in its widest product of matrices, where that is known; small work may run here.
        """
        if self._is_running_thread():
            return work()
        answer: list[T] = []

        def run(rows: Rows) -> Rows:
            answer.append(work())
            return rows

        scope = current_scope()
        self._finish(Item(Stage("alone", scope.deterministic, alone=True), (), run, scope), product)
        return answer[-1]

    @property
    def queue_depth(self) -> int:
        """Rows that wait or run."""
        return self._queued_rows + self._running_rows

    @property
    def queued_bytes(self) -> int:
        """Of the rows that wait."""
        return self._queued_bytes

    @property
    def last_progress(self) -> float:
        """Instant of `time.monotonic()` at which the device thread last finished, or got work after idling."""
        return self._last_progress

    @property
    def stalled_s(self) -> float:
        """For how long there is work and none of it gets done; 0.0 without work."""
        with self._changed:
            return time.monotonic() - self._last_progress if self.queue_depth else 0.0

    @property
    def counts(self) -> BatcherCounts:
        """A snapshot."""
        with self._changed:
            return BatcherCounts(
                self._forwards.batches,
                self._forwards.rows,
                self._forwards.padding_rows,
                self._retried,
                self._ooms,
                self._dropped,
                dict(self._forwards.sizes),
            )

    def close(self, timeout_s: float | None = 10.0) -> None:
        """Refuses new work, finishes what was accepted, and fails what is left after `timeout_s`."""
        with self._changed:
            self._closing = self._closing or "the service is shutting down"
            self._changed.notify_all()
        self._thread.join(timeout_s)
        late = ServiceUnavailable("the service shut down before this request was done", retry_after_s=5.0)
        for piece in self._running:
            self._fail(piece.item, late)
        self._fail_everything(late)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_running_thread(self) -> bool:
        return threading.current_thread() in (self._thread, self._here)

    def _finish(self, item: Item, product: int | None) -> None:
        scope = item.scope
        scope.check()
        try:
            small = product is not None and product <= cores.ONE_CORE_PRODUCT
            if not (small and self._ran_here(item)):
                self._wait_for(item)
        finally:
            elapsed = time.perf_counter() - item.submitted
            scope.figures.waited(max(0.0, elapsed - item.ran_s), item.largest_batch)
        if item.error is not None:
            raise item.error

    def _wait_for(self, item: Item) -> None:
        scope = item.scope
        self._admit(item)
        forget = scope.cancellation.listen(item.event.set)
        try:
            while not item.over:
                remaining = scope.remaining_s
                item.event.wait(None if remaining is None else max(0.0, remaining))
                if not item.over:
                    self._drop(item, scope)
        finally:
            forget()

    def _ran_here(self, item: Item) -> bool:
        """Runs it in the calling thread, which takes half a millisecond less than to wake another and be woken by it.

        False where the device thread has to: on an accelerator, while anything waits or runs, and for deterministic
        rows, whose number of cores decides about bits.
        """
        stage = item.stage
        if not self._on_cpu or stage.deterministic or item.rows is None:
            return False
        began = time.perf_counter()
        with self._changed:
            if self._closing is not None or self._waiting or self._running or self._here is not None:
                return False
            if not stage.alone and item.n_rows > self._forwards.limit(stage):
                return False
            pieces = [Piece(item, item.rows, 0, item.n_rows)]
            item.n_taken, item.queued_bytes = item.n_rows, 0  # it never waited
            self._here = threading.current_thread()
            self._running, self._running_rows = pieces, item.n_rows
            self._last_progress = time.monotonic()
        try:
            self._run(stage, pieces)
            self._progressed(pieces, time.perf_counter() - began)
        finally:
            with self._changed:
                self._running, self._running_rows, self._here = [], 0, None
                self._changed.notify()
        return True

    def _admit(self, item: Item) -> None:
        if item.size_bytes > self.max_queue_bytes:
            raise PayloadTooLarge(
                f"the request's {item.size_bytes} bytes are more than the whole queue may hold, "
                f"{self.max_queue_bytes}"
            )
        with self._changed:
            if self._closing is not None:
                raise ServiceUnavailable(self._closing, retry_after_s=5.0)
            if self._queued_bytes + item.size_bytes > self.max_queue_bytes:
                rate = self._bytes_per_s or self.max_queue_bytes
                raise Overloaded(
                    f"{self._queued_bytes} bytes wait already, and {item.size_bytes} more would exceed the queue's "
                    f"{self.max_queue_bytes}",
                    retry_after_s=round(min(60.0, max(0.1, self._queued_bytes / rate)), 2),
                )
            if not self.queue_depth:
                self._last_progress = time.monotonic()
            self._queued_bytes += item.size_bytes
            self._queued_rows += item.n_rows
            self._waiting.add(item)
            self._changed.notify()

    def _drop(self, item: Item, scope: RequestScope) -> None:
        """Woken before the rows were done: the caller went away, or the deadline passed."""
        try:
            scope.check()
        except FulcrumError as error:
            with self._changed:
                if not item.over:
                    self._dropped += 1
                    self._unqueue(item, item.n_rows - item.n_taken, 0)
                    item.fail(error)
        else:
            item.event.clear()
            if scope.cancellation.is_set() or item.over:  # set between the check and the clear
                item.event.set()

    def _unqueue(self, item: Item, n_rows: int, n_left: int) -> None:
        """`n_rows` wait no longer, `n_left` still do."""
        self._queued_rows -= n_rows
        self._queued_bytes -= item.leave(n_left)

    def _fail_everything(self, error: FulcrumError) -> None:
        with self._changed:
            for item in self._waiting.everything():
                if not item.over:
                    item.fail(error)
            self._queued_rows = self._queued_bytes = 0

    # What follows runs on the device thread, or in the thread of a caller whose rows run there.

    def _work(self) -> None:
        try:
            torch.get_num_threads()  # the first use in a thread would overwrite the number that is set next
            torch.set_num_threads(self._threads)
            while self._work_once():
                pass
        except BaseException as error:  # a bug here must not leave everybody waiting for ever
            self._die(self._running, error)
            raise

    def _work_once(self) -> bool:
        with self._changed:
            while self._here is not None or not (self._waiting or self._closing is not None):
                self._changed.wait()
            taken = self._waiting.take(self._forwards.limit)
            if taken is None:
                return self._closing is None
            stage, pieces = taken
            for piece in pieces:
                self._unqueue(piece.item, piece.n_rows, piece.item.n_rows - piece.item.n_taken)
            self._running = pieces
            self._running_rows = sum(piece.n_rows for piece in pieces)
        began = time.perf_counter()
        self._run(stage, pieces)
        self._progressed(pieces, time.perf_counter() - began)
        return True

    def _progressed(self, pieces: list[Piece], seconds: float) -> None:
        with self._changed:
            self._running, self._running_rows = [], 0
            self._last_progress = time.monotonic()
            done = sum(p.item.size_bytes * p.n_rows // p.item.n_rows for p in pieces)
            if done:
                rate = done / max(seconds, 1e-6)
                self._bytes_per_s = rate if not self._bytes_per_s else 0.8 * self._bytes_per_s + 0.2 * rate

    def _run(self, stage: Stage, pieces: list[Piece]) -> None:
        pieces = [piece for piece in pieces if self._still_wanted(piece.item)]
        if not pieces:
            return
        error = self._failure(stage, pieces)
        if error is None:
            return
        if is_fatal(error):
            self._die(pieces, error)
        elif is_out_of_memory(error):
            self._again_smaller(stage, pieces)
        elif len(pieces) == 1:
            self._fail(pieces[0].item, error)
        else:
            # One request's rows failed all of them: each by itself shows whose.
            self._retried += 1
            for piece in pieces:
                self._run(stage, [piece])

    def _failure(self, stage: Stage, pieces: list[Piece]) -> BaseException | None:
        """What a forward failed with. Frames of a failure for memory are let go: they hold what filled it."""
        try:
            self._forward(stage, pieces)
        except BaseException as error:
            return error.with_traceback(None) if is_out_of_memory(error) else error
        return None

    def _still_wanted(self, item: Item) -> bool:
        if not item.over:
            try:
                item.scope.check()
            except FulcrumError as error:
                self._dropped += 1
                self._fail(item, error)
        return not item.over

    def _again_smaller(self, stage: Stage, pieces: list[Piece]) -> None:
        """Once, in two halves where that is possible."""
        self._ooms += 1
        for batch in self._forwards.smaller(stage, pieces):
            empty_cache()
            error = self._failure(stage, batch)
            if error is None:
                continue
            if is_fatal(error):
                self._die(pieces, error)
                return
            for piece in batch:
                if is_out_of_memory(error):
                    self._fail(piece.item, out_of_memory(error, "also with half the rows"))
                else:
                    self._run(stage, [piece])

    def _forward(self, stage: Stage, pieces: list[Piece]) -> None:
        began = time.perf_counter()
        parts, n_ran = self._forwards.run(stage, pieces)
        seconds = time.perf_counter() - began
        with self._changed:
            for piece, part in zip(pieces, parts, strict=True):
                piece.item.ran_s += seconds
                piece.item.largest_batch = max(piece.item.largest_batch, n_ran)
                piece.item.finish(piece.start, part, piece.n_rows)

    def _fail(self, item: Item, error: BaseException) -> None:
        with self._changed:
            if not item.over:
                # What of it still waits will be skipped.
                self._unqueue(item, item.n_rows - item.n_taken, 0)
                item.fail(error)

    def _die(self, pieces: list[Piece], error: BaseException) -> None:
        with self._changed:
            self._closing = f"the device failed and has to be started again: {error}"
        for piece in pieces:
            self._fail(piece.item, ServiceUnavailable(self._closing, retry_after_s=10.0))
        self._fail_everything(ServiceUnavailable(self._closing, retry_after_s=10.0))
        if self._on_fatal is not None:
            self._on_fatal(error)


def _own(rows: torch.Tensor) -> torch.Tensor:
    """Without the rest of the batch in the same memory."""
    needed = rows.numel() * rows.element_size()
    return rows if rows.untyped_storage().nbytes() <= needed else rows.clone()
