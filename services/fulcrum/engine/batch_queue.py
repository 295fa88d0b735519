"""Rows that wait for the device: by stage, in each stage by user, in each user by arrival."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fulcrum.engine.scopes import RequestScope

# Tensors with the same leading dimension: activations and, where the hook point has one, their carry.
Rows = tuple[Tensor, ...]
Run = Callable[[Rows], Rows]


@dataclass(frozen=True)
class Stage:
    """Rows of equal stages may share a forward: `name` says what runs (weights, hook point, part of the tower)."""

    name: Hashable
    deterministic: bool
    shapes: tuple[tuple[Any, ...], ...] = ()  # of one row of every tensor, with dtype and device
    alone: bool = False  # work that shares nothing: a backward pass, loading of a prompt set

    @classmethod
    def of(cls, name: Hashable, rows: Rows, deterministic: bool) -> "Stage":
        """The stage of these rows."""
        shapes = tuple((tuple(t.shape[1:]), t.dtype, t.device) for t in rows)
        return cls(name, deterministic, shapes)


class Item:
    """One request's rows at one stage. `event` is set when they are done, or when nobody waits for them any more."""

    def __init__(self, stage: Stage, rows: Rows, run: Run, scope: RequestScope) -> None:
        self.stage, self.run, self.scope = stage, run, scope
        self.rows: Rows | None = rows
        self.n_rows = 1 if stage.alone else rows[0].shape[0]
        self.size_bytes = sum(t.numel() * t.element_size() for t in rows)
        self.n_taken = self.n_done = 0
        self.parts: dict[int, Rows] = {}  # results by first row
        self.error: BaseException | None = None
        self.queued_bytes = self.size_bytes
        self.event = threading.Event()
        self.submitted = time.perf_counter()
        self.ran_s = 0.0
        self.largest_batch = 0

    @property
    def over(self) -> bool:
        """Nothing of it is to run any more."""
        return self.error is not None or self.n_done == self.n_rows

    def leave(self, n_left: int) -> int:
        """Bytes that no longer wait when only `n_left` of its rows do."""
        left = self.size_bytes * n_left // self.n_rows
        leaving, self.queued_bytes = self.queued_bytes - left, left
        return leaving

    def fail(self, error: BaseException) -> None:
        """The first error counts."""
        if not self.over:
            self.error = error
            self.rows = None
            self.event.set()

    def finish(self, start: int, part: Rows, n: int) -> None:
        """Rows `start` to `start + n` are done."""
        if self.over:
            return
        self.parts[start] = part
        self.n_done += n
        if self.n_done == self.n_rows:
            self.rows = None
            self.event.set()


@dataclass(frozen=True)
class Piece:
    """Some rows of an item, in one forward."""

    item: Item
    rows: Rows  # all of the item's: it lets go of them when its caller goes away
    start: int
    stop: int

    @property
    def n_rows(self) -> int:
        """How many."""
        return self.stop - self.start

    def halves(self) -> "list[Piece]":
        """Two smaller pieces, or itself when it is a single row."""
        if self.n_rows < 2:
            return [self]
        middle = (self.start + self.stop) // 2
        return [replace(self, stop=middle), replace(self, start=middle)]


class WaitingRows:
    """Round robin between stages, and between users inside a batch. Not thread-safe: the batcher's lock guards it."""

    def __init__(self) -> None:
        self._stages: OrderedDict[Stage, OrderedDict[str, deque[Item]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._stages)

    def add(self, item: Item) -> None:
        """At the end of its user's line."""
        users = self._stages.setdefault(item.stage, OrderedDict())
        users.setdefault(item.scope.user, deque()).append(item)

    def take(self, limit: Callable[[Stage], int]) -> tuple[Stage, list[Piece]] | None:
        """The next batch: at most `limit(stage)` rows of the stage that was served longest ago."""
        while self._stages:
            stage, users = next(iter(self._stages.items()))
            pieces = _share(users, 1 if stage.alone else limit(stage))
            if users:
                self._stages.move_to_end(stage)
            else:
                del self._stages[stage]
            if pieces:
                return stage, pieces
        return None

    def everything(self) -> list[Item]:
        """All items, which wait no longer."""
        items = [item for users in self._stages.values() for line in users.values() for item in line]
        self._stages.clear()
        return items


def _share(users: "OrderedDict[str, deque[Item]]", room: int) -> list[Piece]:
    """An equal share of `room` rows for every user who waits; what one leaves, others get."""
    pieces: list[Piece] = []
    while room and users:
        share = max(1, room // len(users))
        for user in list(users):
            n = _take(users[user], min(share, room), pieces)
            room -= n
            # Who was served goes to the end of the round, so the next batch starts with the others.
            users.move_to_end(user)
            if not users[user]:
                del users[user]
            if not room:
                break
    return _joined(pieces)


def _take(line: deque[Item], room: int, pieces: list[Piece]) -> int:
    taken = 0
    while line and taken < room:
        item = line[0]
        if item.over or item.rows is None:  # whoever waited for it is gone
            line.popleft()
            continue
        n = min(room - taken, item.n_rows - item.n_taken)
        pieces.append(Piece(item, item.rows, item.n_taken, item.n_taken + n))
        item.n_taken += n
        taken += n
        if item.n_taken == item.n_rows:
            line.popleft()
    return taken


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbouring rows of one item as one piece."""
    joined: OrderedDict[Item, Piece] = OrderedDict()
    for piece in pieces:
        before = joined.get(piece.item)
        joined[piece.item] = piece if before is None else replace(before, stop=piece.stop)
    return list(joined.values())
