"""What a person would do in the story: every question goes over HTTP to the gateway, and on to inference or workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fulcrum.client import Client
from fulcrum.client.answers import Explanation, Predictions
from fulcrum.demo.shipped import served_model, served_sae
from fulcrum.domain.corrections import Correction
from fulcrum.domain.errors import AlreadyExists, ComputationFailed
from fulcrum.domain.jobs import JobRecord, JobStanding
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import (
    CorrectionRecord,
    DatasetRecord,
    ImageRecord,
    ModelRecord,
    SaeRecord,
    SessionRecord,
)
from fulcrum.domain.results import DoseResponse, Effect, Suggestion
from fulcrum.domain.tasks import ClassSet, MarginTarget

MODEL_NAME, SAE_NAME, DATASET_NAME, CORRECTION_NAME = "demo CLIP", "demo SAE", "Demo world", "written words"
_N_SHOWN = 12

# (what is being done, done, of how much)
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Picture:
    """An image of the story: its name and its file."""

    name: str
    content: bytes


class Served:
    """The running platform, asked through the SDK. Whatever is there already is used and not made again."""

    def __init__(self, client: Client, task: ClassSet, tell: Tell) -> None:
        """Registers model and SAE, once in the life of the platform."""
        self.client, self.task, self._tell = client, task, tell
        self.model = self._registered_model()
        self.sae = self._registered_sae(self.model)

    def _registered_model(self) -> ModelRecord:
        ref: ModelRef = served_model()
        known = [m for m in self.client.models.list() if m.ref == ref]
        record = known[0] if known else self.client.models.create(MODEL_NAME, ref)
        if record.state == "failed":
            record = self.client.models.warm(record)
        return self.client.models.wait(record)

    def _registered_sae(self, model: ModelRecord) -> SaeRecord:
        source = served_sae()
        known = [s for s in self.client.saes.list(model=model) if s.source == source]
        record = known[0] if known else self.client.saes.create(SAE_NAME, model, source)
        if record.state == "failed":
            record = self.client.saes.warm(record)
        return self.client.saes.wait(record)

    def ended(self, job: JobRecord, words: str) -> JobRecord:
        """The job once it has succeeded, told of while it runs. Raises ComputationFailed with why it has not."""

        def told(standing: JobStanding) -> None:
            progress = standing.job.progress
            if progress is None:
                self._tell(words, 0, 0)
            else:
                self._tell(f"{words}: {progress.what}", int(progress.done), int(progress.total))

        job = self.client.jobs.wait(job, on_progress=told)
        if job.state != "succeeded":
            raise ComputationFailed(f"job {job.id} ({job.kind}) is {job.state}: {job.error}")
        return job

    def imported(self, name: str, source: str, digest: str) -> DatasetRecord:
        """The data set of that name with the images at `source`, whose digest is known."""
        datasets = self.client.datasets
        known = [d for d in datasets.list() if d.name == name]
        record = (
            known[0] if known else datasets.create(name, description="Drawn objects, some with a sticker.")
        )
        if record.digest != digest:
            self.ended(datasets.import_images(record, source, format="manifest"), "import the demo world")
            record = datasets.get(record)
        if record.digest != digest:
            raise ComputationFailed(
                f"the platform has {record.n_images} images with digest {record.digest} where {digest} was drawn"
            )
        return record

    def saved(self, job: JobRecord) -> CorrectionRecord:
        """What the search found, where colleagues find it: a new version where that of an earlier run differs."""
        corrections = self.client.corrections
        known = [c for c in corrections.list(sae=self.sae) if c.name == CORRECTION_NAME]
        if not known:
            words = "Makes the model look at the object and not at the sticker."
            return corrections.save_suggested(job, CORRECTION_NAME, description=words)
        try:
            return corrections.save_suggested(job, correction=known[0], note="told again")
        except AlreadyExists:
            return known[0]

    def predicted(self, pictures: Sequence[Picture], correction: CorrectionRecord) -> Predictions:
        """Uploads the images and asks for their answers without and with the saved correction."""
        images = [self.client.images.upload(p.content, filename=p.name) for p in pictures]
        version = self.client.corrections.version(correction)
        return self.client.predict(images, self.task, sae=self.sae, correction=version)

    def session(self, title: str, picture: Picture, target: MarginTarget) -> "DebugSession":
        """A session about one image, with what is suspected of it."""
        known = [s for s in self.client.sessions.list() if s.title == title]
        image = self.client.images.upload(picture.content, filename=picture.name)
        if known:
            return DebugSession(self, image, target, None)
        session = self.client.sessions.create(title)
        self.client.sessions.note(
            session,
            f"The model reads the sticker: it says {target.class_name!r} where {target.versus!r} is shown.",
            kind="hypothesis",
            image=image,
        )
        return DebugSession(self, image, target, session)


class DebugSession:
    """Questions about one image. Without `session`, when the story was told before, the log stays as it is."""

    def __init__(
        self, served: Served, image: ImageRecord, target: MarginTarget, session: SessionRecord | None
    ) -> None:
        self._client, self._served = served.client, served
        self.image, self._target, self._session = image, target, session
        self.explained: Explanation = self._client.explain(
            image,
            served.task,
            sae=served.sae,
            target=target,
            n_latents=_N_SHOWN,
            per_token=True,
            session=session,
        )

    def suggest(self, wanted: str) -> tuple[Suggestion, ...]:
        """Minimal edits that make `wanted` the answer."""
        with self._client.suggest(self.explained, wanted, session=self._session) as found:
            return found.result().items

    def steer(self, correction: Correction, seed: int) -> Effect:
        """The image under the correction, with pushes of the same size in random directions."""
        return self._client.steer(
            self.explained, correction, target=self._target, seed=seed, session=self._session
        ).effect

    def sweep(self, correction: Correction, gains: Sequence[float]) -> DoseResponse:
        """The image under all edits of the correction at each gain."""
        with self._client.sweep(
            self.explained, correction.latents, gains=gains, target=self._target, session=self._session
        ) as curve:
            return curve.result().response
