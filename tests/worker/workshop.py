"""What tests of handlers stand on: a real store, artifacts in a folder, the demo model, and a worker in this process.

def test_it(workshop):
    sae = workshop.add_demo_sae()
    job = workshop.run(workshop.submit(DescribeConcepts(sae.id, dataset.id)))
    assert job.state == "succeeded", job.error
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fulcrum.datasets.samples import Dataset
from fulcrum.datasets.stored import write_manifest
from fulcrum.demo.shipped import FOLDER_NAME, WEIGHTS, served_model, served_sae
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import JobEvent, JobRecord, JobSpec, queue_of
from fulcrum.domain.records import DatasetRecord, Member, ModelRecord, Project, SaeRecord, User
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store
from fulcrum.worker.handlers.registry import HANDLERS
from fulcrum.worker.held import Terms
from fulcrum.worker.machine import Machine
from fulcrum.worker.running import Handlers, Runner

QUICK = Terms(lease_s=30.0, beat_s=0.05)


class Workshop:
    """A project with a user, and a worker."""

    def __init__(
        self, store: Store, artifacts: Artifacts, folder: Path, make_engine: Callable[[], Any]
    ) -> None:
        self.store, self.artifacts, self.folder = store, artifacts, folder
        self.make_engine = make_engine
        self.folders = {FOLDER_NAME: WEIGHTS}
        self.machine = self.new_machine()
        self.user = User(new_id("usr"), "Ada", now())
        self.project = Project(new_id("prj"), "Stickers", now())
        with store.write() as tx:
            tx.users.add(self.user)
            tx.projects.add(self.project)
            tx.members.put(Member(self.project.id, self.user.id, "admin"))

    def new_machine(self, name: str | None = None) -> Machine:
        """Another process on this machine, as it were."""
        return Machine(
            self.store,
            self.artifacts,
            self.folder,
            name=name,
            folders=self.folders,
            make_engine=self.make_engine,
        )

    def allow_folder(self, name: str, path: Path) -> None:
        """References may name it from now on."""
        self.folders = {**self.folders, name: path}
        self.machine = self.new_machine()

    def new_user(self, name: str) -> User:
        """Somebody else, member of the project."""
        user = User(new_id("usr"), name, now())
        with self.store.write() as tx:
            tx.users.add(user)
            tx.members.put(Member(self.project.id, user.id, "analyst"))
        return user

    def add_demo_model(self) -> ModelRecord:
        """The demo CLIP, registered."""
        model = ModelRecord(
            new_id("mdl"), self.project.id, new_id("demo"), served_model(), self.user.id, now(), "ready"
        )
        with self.store.write() as tx:
            return tx.models.add(model)

    def add_demo_sae(self, model: ModelRecord | None = None) -> SaeRecord:
        """Its SAE, registered, with its model."""
        model = model or self.add_demo_model()
        sae = SaeRecord(
            new_id("sae"),
            self.project.id,
            new_id("demo"),
            model.id,
            served_sae(),
            self.user.id,
            now(),
            "ready",
        )
        with self.store.write() as tx:
            return tx.saes.add(sae)

    def add_dataset(self, dataset: Dataset) -> DatasetRecord:
        """A data set as an import leaves it."""
        record = stored_dataset(dataset, self.artifacts, self.project.id, self.user.id)
        with self.store.write() as tx:
            return tx.datasets.add(record)

    def submit(
        self,
        spec: JobSpec,
        *,
        key: str | None = None,
        after: tuple[str, ...] = (),
        user: User | None = None,
        **changes: Any,
    ) -> JobRecord:
        """A new job of the project, queued."""
        job = JobRecord(
            id=new_id("job"),
            project_id=self.project.id,
            kind=spec.kind,
            spec=spec,
            created_by=(user or self.user).id,
            created_at=now(),
            queue=queue_of(spec),
            key=key,
            after=after,
        )
        with self.store.write() as tx:
            return tx.jobs.add(dataclasses.replace(job, **changes))

    def job(self, job: JobRecord | str) -> JobRecord:
        """The job as it stands."""
        with self.store.read() as tx:
            return tx.jobs.get(job if isinstance(job, str) else job.id)

    def runner(self, handlers: Handlers | None = None, **options: Any) -> Runner:
        """A worker with these handlers, or with those of the product."""
        options = {"terms": QUICK, **options}
        machine = options.pop("machine", self.machine)
        return Runner(machine, HANDLERS if handlers is None else handlers, **options)

    def run(self, job: JobRecord, handlers: Handlers | None = None) -> JobRecord:
        """The job after everything that is due has run."""
        self.runner(handlers).run_until_idle()
        return self.job(job)

    def events(self, job: JobRecord) -> list[JobEvent]:
        """All that the job said."""
        with self.store.read() as tx:
            return tx.job_events.after(job.id, 0)

    def log(self, job: JobRecord) -> list[str]:
        """The lines of its log."""
        return [e.content["text"] for e in self.events(job) if e.kind == "log"]

    def metrics(self, job: JobRecord) -> list[Mapping[str, float]]:
        """The points of its curves."""
        return [e.content for e in self.events(job) if e.kind == "metric"]


def stored_dataset(dataset: Dataset, artifacts: Artifacts, project_id: str, user_id: str) -> DatasetRecord:
    """The record of a data set whose images and manifest are put among the artifacts."""
    for sample in dataset.samples:
        artifacts.put_bytes(dataset.read_bytes(sample))
    return DatasetRecord(
        new_id("dat"),
        project_id,
        new_id("data"),
        user_id,
        now(),
        "",
        "ready",
        dataset.digest,
        len(dataset),
        dataset.class_names,
        {s: len(dataset.numbers(split=s)) for s in dataset.split_names},
        artifacts.put_bytes(write_manifest(dataset)),
    )
