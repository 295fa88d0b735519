"""Every kind of job in a real worker that is killed in the middle: the same numbers as when it is left alone."""

import contextlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.worker.lab import ATTACK
from tests.worker.test_processes import Processes
from tests.worker.workshop import Workshop

from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS, demo_task
from fulcrum.demo.world_dataset import MANIFEST, write_demo_dataset
from fulcrum.domain.corrections import from_dict
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import (
    JOB_KINDS,
    DescribeConcepts,
    FindExperts,
    ImportDataset,
    IndexDataset,
    InteractCorrections,
    SuggestCorrection,
    SweepCorrection,
    ValidateCorrection,
    VersionOf,
    Where,
)
from fulcrum.domain.records import CorrectionRecord, CorrectionVersion, DatasetRecord
from fulcrum.store.artifacts import open_artifacts
from fulcrum.store.database import open_store
from fulcrum.worker.machine import Machine

WORLD = "world"
# In the order in which each finds what it stands on. Trainings are killed in test_training_processes.
KINDS = (
    "import_dataset",
    "index_dataset",
    "suggest_correction",
    "validate_correction",
    "sweep_correction",
    "interact_corrections",
    "describe_concepts",
    "find_experts",
)
WITH_REDIS = "sweep_correction"  # its worker and Redis are killed at once


class Shop(Workshop):
    """Its workers know the folder of the world."""

    world = None

    def new_machine(self, name=None):
        folders = {FOLDER_NAME: WEIGHTS, WORLD: self.world}
        return Machine(
            self.store, self.artifacts, self.folder, name=name, folders=folders, make_engine=self.make_engine
        )


@dataclass
class Chain:
    """One job of each kind after the other, and what each left."""

    shop: Shop
    left: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        shop = self.shop
        self.sae = shop.add_demo_sae()
        self.dataset = DatasetRecord(new_id("dat"), shop.project.id, "world", shop.user.id, now())
        with shop.store.write() as tx:
            tx.datasets.add(self.dataset)
        self.corrections = []

    def spec(self, kind):
        data, sae = self.dataset.id, self.sae.id
        first = self.corrections[0] if self.corrections else None
        return {
            "import_dataset": lambda: ImportDataset(data, f"folder:{WORLD}/{MANIFEST}"),
            "index_dataset": lambda: IndexDataset(data, sae),
            "suggest_correction": lambda: SuggestCorrection(
                data, sae, ATTACK, (Where("sticker_kind", "none"),), budget=40, task=demo_task()
            ),
            "validate_correction": lambda: ValidateCorrection(
                first, 1, data, "confirm", ATTACK, n_controls=10, task=demo_task()
            ),
            "sweep_correction": lambda: SweepCorrection(
                first, 1, data, (0.0, 0.5), "select", ATTACK, n_controls=10, task=demo_task()
            ),
            "interact_corrections": lambda: InteractCorrections(
                tuple(VersionOf(c, 1) for c in self.corrections[1:]), data, task=demo_task()
            ),
            "describe_concepts": lambda: DescribeConcepts(
                sae, data, ("cup", "fish", "star", "key", "house"), n_top_images=4
            ),
            "find_experts": lambda: FindExperts(
                "vision", self.sae.model_id, dataset_id=data, columns=("label",), n_pos=4, n_neg=20
            ),
        }[kind]()

    def note(self, kind, job):
        """What the job left, without ids and times."""
        assert job.state == "succeeded", (kind, job.error)
        shop = self.shop
        left = {"result": json.loads(re.sub(r"[a-z]{3}_[0-9a-z]{26}", "id", json.dumps(job.result)))}
        if kind == "suggest_correction":
            self.save(from_dict(json.loads(shop.artifacts.read_bytes(job.result["correction_artifact"]))))
        with shop.store.read() as tx:
            if "evaluation_id" in job.result:
                record = tx.evaluations.get(job.result["evaluation_id"])
                report = json.loads(shop.artifacts.read_bytes(record.report_sha256))
                for name in ("time", "user"):
                    report["provenance"].pop(name)
                left |= {"report": report, "table": record.parquet_sha256, "look": record.look}
                left["result"].pop("report_sha256")
                left["n_evaluations"] = len(tx.evaluations.list(shop.project.id).items)
            looks = tx.looks.at(shop.project.id, tx.datasets.get(self.dataset.id).digest)
            left["looks"] = [(k.split, k.correction_sha256, k.number) for k in looks]
            left["manifest"] = tx.datasets.get(self.dataset.id).manifest_sha256
            left["indexes"] = [i.files for i in tx.indexes.list(project_id=shop.project.id).items]
            left["descriptions"] = [d.sha256 for d in tx.descriptions.list(project_id=shop.project.id).items]
        self.left[kind] = left

    def save(self, found):
        assert len(found.edits) >= 2, "the search found too little for two corrections"
        for edits in (found.edits, found.edits[:1], found.edits[1:]):
            content = replace(found, edits=edits)
            record = CorrectionRecord(
                new_id("cor"), self.shop.project.id, new_id("c"), self.shop.user.id, now(), sae_id=self.sae.id
            )
            version = CorrectionVersion(record.id, 1, content.sha256, content, self.shop.user.id, now())
            with self.shop.store.write() as tx:
                tx.corrections.add(record, version)
            self.corrections.append(record.id)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    n_pairs = {"discover": 30, "select": 16, "confirm": 24}
    return write_demo_dataset(folder, n_pairs=n_pairs, n_right=2, n_neutral=2, n_cues=2, seed=5).parent


@pytest.fixture(scope="module")
def open_shop(migrated_store, local_engine, world, tmp_path_factory):
    with contextlib.ExitStack() as stack:

        def opened():
            folder = tmp_path_factory.mktemp("shop")
            url = f"sqlite:///{shutil.copy(migrated_store, folder / 'store.sqlite')}"
            store = stack.enter_context(open_store(url))
            artifacts = stack.enter_context(open_artifacts(f"file://{folder / 'artifacts'}"))
            Shop.world = world
            return Shop(store, artifacts, folder / "scratch", lambda: local_engine), url, folder

        yield opened


@pytest.fixture(scope="module")
def undisturbed(open_shop):
    """What each kind leaves in this process, where nothing is killed."""
    shop, _, _ = open_shop()
    chain = Chain(shop)
    for kind in KINDS:
        chain.note(kind, shop.run(shop.submit(chain.spec(kind))))
    return chain.left


@pytest.fixture(scope="module")
def killed(open_shop, world, local_engine):
    """What each kind leaves when its worker is killed with all its processes, and another one takes over."""
    import torch

    shop, url, folder = open_shop()
    chain, processes = Chain(shop), Processes(shop, url, folder)
    slow = shop.machine.cache / "slow"
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        stack.callback(processes.close)
        # Sums over another number of threads round differently.
        patch.setitem(os.environ, "OMP_NUM_THREADS", str(torch.get_num_threads()))

        def start():
            return processes.start(1, "tests.worker.product_entry", folders={WORLD: str(world)})

        def in_the_middle(job):
            now = shop.job(job)
            assert now.state in ("queued", "running"), (now.kind, now.state, now.error)
            if now.n_shards > 1:
                return now.n_shards_done >= 1
            return now.progress is not None and now.progress.done > 0

        worker = start()
        for kind in KINDS:
            slow.touch()
            job = shop.submit(chain.spec(kind))
            processes.queue.wake(job.queue)
            processes.until(lambda job=job: in_the_middle(job), 120)
            processes.kill(worker)
            if kind == WITH_REDIS:
                processes.redis.kill()
            assert shop.job(job).state == "running", "it was over before it was killed"
            slow.unlink()
            if kind == WITH_REDIS:
                processes.redis.start()
            worker = start()
            chain.note(kind, processes.until_ended(job, 180))
        yield chain.left


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_job_leaves_what_an_undisturbed_one_leaves(kind, undisturbed, killed):
    assert killed[kind] == undisturbed[kind]


def test_every_kind_of_job_is_killed_somewhere():
    assert {*KINDS, "train_sae"} == set(JOB_KINDS)
