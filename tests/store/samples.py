"""One of each thing that the store keeps."""

import dataclasses
from datetime import timedelta

from fulcrum.domain.corrections import Correction, Origin
from fulcrum.domain.edits import MarginCondition, Scale, Scope, SetTo
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.models import ModelInfo, ModelRef, SaeInfo
from fulcrum.domain.provenance import Provenance
from fulcrum.domain.records import (
    ApiToken,
    ConceptRecord,
    CorrectionRecord,
    CorrectionVersion,
    DatasetRecord,
    DatasetVersion,
    DescriptionRecord,
    EvaluationRecord,
    ExpertsRecord,
    ImageRecord,
    ImageSetRecord,
    IndexRecord,
    Login,
    Member,
    ModelRecord,
    Project,
    ResultRecord,
    SaeRecord,
    SessionEntry,
    SessionRecord,
    User,
)
from fulcrum.domain.tasks import ClassSet

REF = ModelRef("ViT-B-32", "laion2b_s34b_b79k")
MODEL_INFO = ModelInfo(
    ref=REF,
    weights_sha256="a" * 64,
    preprocess_sha256="b" * 64,
    image_size=224,
    n_blocks=12,
    d_model=768,
    d_embed=512,
    n_tokens=50,
    grid=(7, 7),
    has_cls=True,
    pooling="cls",
    logit_scale=100.00000762939453,
    logit_bias=None,
    n_parameters=151_277_313,
    device="cpu",
    dtype="float32",
    hook_points=("visual.blocks.6.resid_post", "visual.blocks.7.resid_post"),
)
SAE_INFO = SaeInfo(
    name="demo",
    weights_sha256="c" * 64,
    variant="topk",
    d_in=768,
    d_sae=49152,
    hook_point=HookPoint.parse("visual.blocks.6.resid_post"),
    model_name="ViT-B-32",
    quality={"fvu": 0.1, "l0": 32.0},
)
PROVENANCE = Provenance(
    model_sha256="a" * 64,
    sae_sha256=None,
    hook_point=None,
    preprocess_sha256="b" * 64,
    device="cpu",
    dtype="float32",
    deterministic=True,
    batch_size=8,
    queue_ms=0.1 + 0.2,
    compute_ms=12.5,
    prefix_cached=False,
    fulcrum_version="0.1.0",
    torch_version="2.9.0",
)


def correction(gain: float = 0.0, latent: int = 3) -> Correction:
    return Correction(
        model_sha256="a" * 64,
        sae_sha256="c" * 64,
        hook_point="visual.blocks.6.resid_post",
        edits=(Scale(latent, gain), SetTo(latent + 1, 2.5)),
        scope=Scope("patch_list", (0, 5)),
        conditions=(MarginCondition(below=1.5),),
        task=ClassSet(("a cat", "ein Hund 🐕"), ("a photo of {}",)),
        origin=Origin("image_search", ("d" * 64,), note="found on one image"),
    )


def version_of(correction_id: str, user_id: str, value: Correction, number: int = 1) -> CorrectionVersion:
    return CorrectionVersion(correction_id, number, value.sha256, value, user_id, now(), "why")


class World:
    """Everything once, kept; `attributes` are the records as they were given to the store."""

    def __init__(self, store):
        self.store = store
        at = now()
        self.user = User(new_id("usr"), "Änne", at, is_admin=True)
        self.other = User(new_id("usr"), "Bob", at)
        self.project = Project(new_id("prj"), "Stickers", at)
        p, u = self.project.id, self.user.id
        self.token = ApiToken(
            new_id("tok"), u, "laptop", ("read", "write"), at, expires_at=at + timedelta(days=1)
        )
        self.login = Login(new_id("log"), u, at, at + timedelta(hours=8))
        self.model = ModelRecord(new_id("mdl"), p, "B/32", REF, u, at, "ready", MODEL_INFO)
        self.sae = SaeRecord(
            new_id("sae"), p, "mid", self.model.id, "folder:demo/sae", u, at, "ready", SAE_INFO
        )
        self.image = ImageRecord(
            new_id("img"), p, "e" * 64, "image/png", 2**33, 640, 480, "Bild ü.png", u, at
        )
        self.dataset = DatasetRecord(
            new_id("dat"),
            p,
            "birds",
            u,
            at,
            "all of them",
            "ready",
            "f" * 64,
            12,
            ("a", "b"),
            {"confirm": 12},
        )
        self.session = SessionRecord(new_id("ses"), p, "Monday", u, at)
        self.result = ResultRecord(
            new_id("res"),
            p,
            "effect",
            "k" * 64,
            {"gain": 0.1, "nested": [{"x": None}]},
            {"probs": [1e-300, 0.3333333333333333]},
            PROVENANCE,
            u,
            at,
            self.image.id,
        )
        self.entry = SessionEntry(
            new_id("ent"),
            self.session.id,
            "result",
            {"text": "it moved"},
            u,
            at,
            self.result.id,
            self.image.id,
        )
        self.correction = CorrectionRecord(
            new_id("cor"), p, "no stickers", u, at, "text", model_id=self.model.id, sae_id=self.sae.id
        )
        self.version = version_of(self.correction.id, u, correction())
        self.concept = ConceptRecord(
            new_id("con"), p, self.sae.id, 7, u, at, "sticker", "auto", 0.875, "seen on mugs"
        )
        self.evaluation = EvaluationRecord(
            new_id("evl"),
            p,
            "validation",
            self.correction.id,
            1,
            self.version.sha256,
            self.dataset.id,
            "f" * 64,
            "confirm",
            "a" * 64,
            "c" * 64,
            "0.1.0",
            "5" * 64,
            "job_1",
            "6" * 64,
            u,
            at,
            verdict="generalises",
            badge="generalises",
            look=1,
            gates={"harm": "pass"},
            numbers={"n": 12, "p": 1e-12, "mde": None},
            columns_sha256="7" * 64,
        )
        files = {"index.json": "1" * 64, "shard-000000.arrays": "2" * 64}
        self.dataset_version = DatasetVersion(
            new_id("dsv"), p, self.dataset.id, "f" * 64, "8" * 64, "9" * 64, 12, 2**40, {"select": 12}, "job_1", u, at
        )  # fmt: skip
        self.index = IndexRecord(
            new_id("idx"), p, self.dataset.id, self.sae.id, "3" * 64, "f" * 64, "a" * 64, "c" * 64, 12, 5, 2**40,
            files, u, at,
        )  # fmt: skip
        self.description = DescriptionRecord(
            new_id("dsc"), p, self.sae.id, self.dataset.id, self.index.id, "4" * 64, "5" * 64, 40, 900, 2**33, u, at
        )  # fmt: skip
        self.experts = ExpertsRecord(
            new_id("exp"), p, "objects", "latents", self.model.id, "a" * 64, "8" * 64, "9" * 64, "job_2", 12, 49152,
            600, 2**33, u, at, self.sae.id, "c" * 64, self.dataset.id, "f" * 64, numbers={"ari_experts": 0.5},
        )  # fmt: skip
        self.image_set = ImageSetRecord(
            new_id("ims"),
            p,
            self.dataset.id,
            "night",
            "invariant",
            "0" * 64,
            3,
            u,
            at,
            "dark",
            {"confirm": 3},
        )
        with store.write() as tx:
            for user in (self.user, self.other):
                tx.users.add(user)
            tx.projects.add(self.project)
            tx.members.put(Member(p, u, "admin"))
            tx.tokens.add(self.token, "token-hash")
            tx.logins.add(self.login, "login-hash")
            tx.models.add(self.model)
            tx.saes.add(self.sae)
            tx.images.add(self.image)
            tx.datasets.add(self.dataset)
            tx.dataset_versions.add(self.dataset_version)
            tx.sessions.add(self.session)
            tx.results.add(self.result)
            tx.sessions.add_entry(self.entry)
            tx.corrections.add(self.correction, self.version)
            tx.concepts.add(self.concept)
            tx.evaluations.add(self.evaluation)
            tx.indexes.add(self.index)
            tx.descriptions.add(self.description)
            tx.experts.add(self.experts)
            tx.image_sets.add(self.image_set)

    def another_image(self, **changes) -> ImageRecord:
        """Not kept yet."""
        sha256 = new_id("x").removeprefix("x_").ljust(64, "0")
        return dataclasses.replace(self.image, **{"id": new_id("img"), "sha256": sha256, **changes})

    def another_model(self, name: str) -> ModelRecord:
        """Not kept yet."""
        return dataclasses.replace(self.model, id=new_id("mdl"), name=name)
