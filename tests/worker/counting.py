"""A handler for tests of the job layer: squares numbers, a shard for each, and adds them up."""

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

from fulcrum.domain.jobs import DescribeConcepts, Shard, ShardResult, content_key
from fulcrum.worker.work import Work


def numbers(n: int, seed: int = 0) -> DescribeConcepts:
    """The spec of a job that squares 0 .. n-1; kinds of jobs are fixed, so one of them stands in."""
    return DescribeConcepts("no-sae", "no-dataset", n_top_images=n, seed=seed)


class Counting:
    """`during` is called in the middle of each shard."""

    def __init__(self, during: Callable[[Work, Shard], None] | None = None) -> None:
        self.during = during
        self.computed: list[int] = []
        self._lock = threading.Lock()

    def plan(self, work: Work) -> Sequence[Shard]:
        spec = work.job.spec
        assert isinstance(spec, DescribeConcepts)
        work.log(f"{spec.n_top_images} numbers")
        return [Shard(content_key(square=i, seed=spec.seed), {"number": i}) for i in range(spec.n_top_images)]

    def run_shard(self, work: Work, shard: Shard) -> bytes:
        number = shard.content["number"]
        work.progress("squaring", 0, 1, "numbers")
        if self.during is not None:
            self.during(work, shard)
        with self._lock:
            self.computed.append(number)
        work.progress("squaring", 1, 1, "numbers")
        return json.dumps(number**2).encode()

    def reduce(self, work: Work, results: Sequence[ShardResult]) -> dict[str, Any]:
        values = [json.loads(work.artifacts.read_bytes(r.sha256)) for r in results]
        work.metric({"sum": sum(values)})
        return {"values": values, "sum": sum(values)}
