"""`python -m tests.worker.entry FD`: the pool with a handler of the tests. Slow enough to be killed in the middle."""

import sys
import time
from pathlib import Path

from tests.worker.counting import Counting

from fulcrum.telemetry import configure_logging
from fulcrum.worker.pool import run_pool
from fulcrum.worker.settings import Settings


def slowly(work, shard):
    with (Path(work.cache) / "begun").open("a") as file:
        file.write(f"{shard.content['number']}\n")
    for i in range(4):
        work.progress("squaring", i, 4, "numbers")
        time.sleep(0.1)


def burn(work, shard):
    """Half a second of one core."""
    until = time.process_time() + 0.5
    while time.process_time() < until:
        sum(range(1000))


def handlers():
    from fulcrum.worker.datasets import dataset_opener
    from fulcrum.worker.handlers.train_sae import TrainSaeHandler

    # The seed says how: 1 burns a core, others take their time.
    return {
        "describe_concepts": Counting(
            lambda work, shard: burn(work, shard) if work.job.spec.seed == 1 else slowly(work, shard)
        ),
        "train_sae": TrainSaeHandler(dataset_opener(), checkpoint_every_s=0.2),
    }


if __name__ == "__main__":
    settings = Settings()
    configure_logging("worker", settings.log_level)
    run_pool(settings, int(sys.argv[1]), handlers)
