"""A workshop with an indexed data set and a correction, for tests of what is asked about corrections."""

import json

import numpy as np

from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
from fulcrum.domain.edits import Scale
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import ValidateCorrection, Where
from fulcrum.domain.records import CorrectionRecord, CorrectionVersion, DatasetRecord
from fulcrum.engine.dataset_runs import DatasetRun
from fulcrum.worker.handlers.interact_corrections import InteractCorrectionsHandler
from fulcrum.worker.handlers.suggest_correction import SuggestCorrectionHandler
from fulcrum.worker.handlers.sweep_correction import SweepCorrectionHandler
from fulcrum.worker.handlers.validate_correction import ValidateCorrectionHandler

ATTACK = (Where("sticker_kind", "attack"),)


class Lab:
    """A workshop with a data set, a correction and handlers which open the data set from the test's memory."""

    def __init__(self, workshop, engine, dataset, index):
        self.workshop, self.engine, self.data, self.index = workshop, engine, dataset, index
        self.sae = workshop.add_demo_sae()
        self.runs = []
        self.dataset = DatasetRecord(
            new_id("dat"), workshop.project.id, "small", workshop.user.id, now(), "", "ready", dataset.digest
        )
        rates = np.asarray(index.statistics.image_rate)
        edits = [Scale(int(n), 0.0) for n in np.argsort(-rates)[[3, 9]]]
        self.content = engine.correction(demo_model(), demo_sae(), edits, task=demo_task())
        self.correction = CorrectionRecord(
            new_id("cor"), workshop.project.id, "c", workshop.user.id, now(), sae_id=self.sae.id
        )
        with workshop.store.write() as tx:
            tx.datasets.add(self.dataset)
            tx.corrections.add(self.correction, self.version(self.content))
        self.handlers = {
            "validate_correction": ValidateCorrectionHandler(self.open),
            "sweep_correction": SweepCorrectionHandler(self.open),
            "suggest_correction": SuggestCorrectionHandler(self.open),
            "interact_corrections": InteractCorrectionsHandler(self.open),
        }

    def version(self, content, number=1):
        return CorrectionVersion(
            self.correction.id, number, content.sha256, content, self.workshop.user.id, now()
        )

    def open(self, work, dataset_id, sae_id, task):
        with work.store.read() as tx:
            tx.datasets.get(dataset_id)
        residency = self.engine.residency
        task = task or demo_task()
        run = DatasetRun(
            residency.steerable(*work.sae(sae_id)),
            residency.head(demo_model(), task),
            task,
            self.data,
            self.index,
        )
        self.runs.append(run)
        return run

    def ask(self, **changes):
        values = {"split": "confirm", "where": ATTACK, **changes}
        return ValidateCorrection(self.correction.id, values.pop("number", 1), self.dataset.id, **values)

    def run(self, spec, **options):
        return self.workshop.run(self.workshop.submit(spec, **options), self.handlers)

    def evaluation(self, job):
        with self.workshop.store.read() as tx:
            return tx.evaluations.get(job.result["evaluation_id"])

    def report(self, job):
        return json.loads(self.workshop.artifacts.read_bytes(self.evaluation(job).report_sha256))

    def n_forwards(self):
        return sum(r.counts.suffix_rows + r.counts.prefix_images for r in self.runs)
