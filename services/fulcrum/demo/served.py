"""What a person would play of the story: each question goes over HTTP to the gateway and over gRPC to inference."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fulcrum.client import Client
from fulcrum.client.answers import Explanation
from fulcrum.demo.shipped import served_model, served_sae
from fulcrum.domain.corrections import Correction
from fulcrum.domain.errors import AlreadyExists, ComputationFailed
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import CorrectionRecord, ImageRecord, ModelRecord, SaeRecord
from fulcrum.domain.results import Attribution, DoseResponse, Effect, FloatArray, Suggestion
from fulcrum.domain.tasks import ClassSet, MarginTarget

MODEL_NAME, SAE_NAME, CORRECTION_NAME = "demo CLIP", "demo SAE", "written words"
_N_SHOWN = 12
_UPLOADERS = 4
_IMAGES_OF_A_CALL = 200  # of the 1000 that one call may carry: the story tells how far it is

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Picture:
    """An image of the story: its name and its file."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Paired:
    """Logits of many images without and with the correction, (n, n_classes) each."""

    before: FloatArray
    after: FloatArray


class Served:
    """The running platform, asked through the SDK. `explain` comes first: the other questions are about its image."""

    def __init__(self, client: Client, task: ClassSet, title: str) -> None:
        """Registers model and SAE (once in the life of the platform) and begins a session of that title."""
        self._client, self._task = client, task
        self.model = self._registered_model()
        self.sae = self._registered_sae(self.model)
        self.session = client.sessions.create(title)
        self.correction: CorrectionRecord | None = None
        self.n_results = 0
        self._explained: Explanation | None = None

    def _registered_model(self) -> ModelRecord:
        ref: ModelRef = served_model()
        known = [m for m in self._client.models.list() if m.ref == ref]
        record = known[0] if known else self._client.models.create(MODEL_NAME, ref)
        if record.state == "failed":
            record = self._client.models.warm(record)
        return self._client.models.wait(record)

    def _registered_sae(self, model: ModelRecord) -> SaeRecord:
        source = served_sae()
        known = [s for s in self._client.saes.list(model=model) if s.source == source]
        record = known[0] if known else self._client.saes.create(SAE_NAME, model, source)
        if record.state == "failed":
            record = self._client.saes.warm(record)
        return self._client.saes.wait(record)

    @property
    def explained(self) -> Explanation:
        """What `explain` found."""
        assert self._explained is not None, "explain comes first"
        return self._explained

    def explain(self, picture: Picture, target: MarginTarget) -> Attribution:
        """Latents with score, measured effect and scores per token; notes what is suspected."""
        image = self._client.images.upload(picture.content, filename=picture.name)
        self._client.sessions.note(
            self.session,
            f"The model reads the sticker: it says {target.class_name!r} where {target.versus!r} is shown.",
            kind="hypothesis",
            image=image,
        )
        self._explained = self._client.explain(
            image,
            self._task,
            sae=self.sae,
            target=target,
            n_latents=_N_SHOWN,
            per_token=True,
            session=self.session,
        )
        self.n_results += 1
        return self._explained.attribution

    def suggest(self, wanted: str) -> tuple[Suggestion, ...]:
        """Minimal edits that make `wanted` the answer."""
        with self._client.suggest(self.explained, wanted, session=self.session) as found:
            suggestions = found.result()
        self.n_results += 1
        return suggestions.items

    def steer(self, correction: Correction, target: MarginTarget, seed: int) -> Effect:
        """The image under the correction, with pushes of the same size in random directions."""
        self.n_results += 1
        return self._client.steer(
            self.explained, correction, target=target, seed=seed, session=self.session
        ).effect

    def sweep(self, correction: Correction, gains: Sequence[float], target: MarginTarget) -> DoseResponse:
        """The image under all edits of the correction at each gain."""
        with self._client.sweep(
            self.explained, correction.latents, gains=gains, target=target, session=self.session
        ) as curve:
            response = curve.result().response
        self.n_results += 1
        return response

    def save(self, correction: Correction) -> None:
        """Keeps it where colleagues find it: a new version where the correction of an earlier run differs."""
        corrections = self._client.corrections
        known = [c for c in corrections.list(sae=self.sae) if c.name == CORRECTION_NAME]
        if not known:
            self.correction = corrections.create(
                CORRECTION_NAME,
                correction,
                description="Makes the model look at the object and not at the sticker.",
                model=self.model,
                sae=self.sae,
            )
            return
        try:
            corrections.add_version(known[0], correction, note="told again")
        except AlreadyExists:
            self.correction = known[0]
        else:
            self.correction = corrections.get(known[0])

    def predict(self, pictures: Sequence[Picture], correction: Correction, progress: Progress) -> Paired:
        """Uploads the images and asks for their answers without and with the saved correction, named by its id: what is
        proven is what colleagues will find.
        """
        assert self.correction is not None, "save comes first"
        saved = self._client.corrections.version(self.correction)
        if saved.correction.sha256 != correction.sha256:
            raise ComputationFailed(
                f"the platform saved {saved.correction.sha256[:12]} and not the correction that was found, "
                f"{correction.sha256[:12]}"
            )
        records: list[ImageRecord] = []
        total = 2 * len(pictures)
        with ThreadPoolExecutor(_UPLOADERS) as uploaders:
            uploads = [
                uploaders.submit(self._client.images.upload, p.content, filename=p.name) for p in pictures
            ]
            try:
                for upload in uploads:
                    records.append(upload.result())
                    progress(len(records), total)
            finally:
                uploaders.shutdown(cancel_futures=True)
        before: list[FloatArray] = []
        after: list[FloatArray] = []
        for start in range(0, len(records), _IMAGES_OF_A_CALL):
            part = records[start : start + _IMAGES_OF_A_CALL]
            answer = self._client.predict(
                part, self._task, sae=self.sae, correction=saved, session=self.session
            )
            self.n_results += 1
            for one, other in answer.pairs:
                before.append(np.asarray(one.logits))
                after.append(np.asarray(other.logits))
            progress(len(records) + len(before), total)
        return Paired(np.stack(before), np.stack(after))
