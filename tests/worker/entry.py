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


def slow_import():
    """An import of small parts, each of which takes its time, as does the end before and after it is written."""
    from fulcrum.worker.handlers import import_dataset

    import_dataset.IMAGES_PER_PART = 8

    def note(work, what):
        with (Path(work.cache) / "begun").open("a") as file:
            file.write(f"{what}\n")
        time.sleep(0.4)

    class SlowImport(import_dataset.ImportDatasetHandler):
        def run_shard(self, work, shard):
            note(work, shard.content["first"])
            return super().run_shard(work, shard)

        def reduce(self, work, results):
            note(work, "reduce")
            result = super().reduce(work, results)
            note(work, "written")
            return result

    return SlowImport()


def handlers():
    from fulcrum.worker.datasets import dataset_opener
    from fulcrum.worker.handlers.train_sae import TrainSaeHandler

    # The seed says how: 1 burns a core, others take their time.
    return {
        "describe_concepts": Counting(
            lambda work, shard: burn(work, shard) if work.job.spec.seed == 1 else slowly(work, shard)
        ),
        "import_dataset": slow_import(),
        "train_sae": TrainSaeHandler(dataset_opener(), checkpoint_every_s=0.2),
    }


if __name__ == "__main__":
    settings = Settings()
    configure_logging("worker", settings.log_level)
    run_pool(settings, int(sys.argv[1]), handlers)
