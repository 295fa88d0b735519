"""A job of many shards on two worker processes against one, each of one thread, on a platform of its own."""

import os
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from fulcrum.bench.asking import finished
from fulcrum.bench.measure import environment, spread
from fulcrum.bench.validate import Tell
from fulcrum.client import Client
from fulcrum.domain.errors import ComputationFailed
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import DatasetRecord

# A platform with so many worker processes that knows nothing yet: (n_workers, round).
Served = Callable[[int, int], AbstractContextManager[Client]]


@dataclass(frozen=True)
class Sources:
    """Manifests as imports name them: the images that are indexed, and two small sets of them to load the model for."""

    measured: str
    warm_up: tuple[str, str]


def bench_workers(
    served: Served, ref: ModelRef, sae: str, sources: Sources, rounds: int, tell: Tell = lambda text: None
) -> dict[str, Any]:
    """`two_over_one`: wall seconds of indexing a data set on one worker over those on two, medians of the rounds.

    The workers have the model loaded and the images imported before the clock starts. Raises ComputationFailed when
    a job fails or the two give different indexes.
    """
    times: dict[int, list[float]] = {1: [], 2: []}
    digests: set[str] = set()
    for round_ in range(rounds):
        for n_workers in times:
            with served(n_workers, round_) as client:
                seconds, digest = _indexed(client, ref, sae, sources)
            times[n_workers].append(seconds)
            digests.add(digest)
            tell(f"{n_workers} worker{'s' if n_workers > 1 else ''}: {seconds:.1f} s")
    if len(digests) != 1:
        raise ComputationFailed("one and two workers gave different indexes")
    one, two = (statistics.median(times[n]) for n in (1, 2))
    return {
        "benchmark": "workers",
        "measured": "wall seconds of index_dataset from the question to its end; a thread for each process",
        "cores": os.cpu_count(),
        "ratios": {"two_over_one": one / two, "indexes_equal": True},
        "seconds": {"one": spread(times[1]), "two": spread(times[2])},
        **environment(1, "cpu"),
    }


def _indexed(client: Client, ref: ModelRef, sae: str, sources: Sources) -> tuple[float, str]:
    model = client.models.wait(client.models.create("demo CLIP", ref))
    known = client.saes.wait(client.saes.create("demo SAE", model, sae))
    few = [_imported(client, source) for source in sources.warm_up]
    # Asked for at once, so that a worker that is idle takes the second: each loads the model for its own.
    for job in [client.latents.index(data, known) for data in few]:
        finished(client, job)
    data = _imported(client, sources.measured)
    began = time.perf_counter()
    job = finished(client, client.latents.index(data, known))
    seconds = time.perf_counter() - began
    assert job.result is not None  # it succeeded
    name = job.result["index_id"]
    (index,) = (i for i in client.latents.indexes(dataset=data, sae=known) if i.id == name)
    return seconds, index.key + "".join(index.files[name] for name in sorted(index.files))


def _imported(client: Client, source: str) -> DatasetRecord:
    data = client.datasets.create(source)
    finished(client, client.datasets.import_images(data, source, format="manifest"))
    return client.datasets.get(data)
