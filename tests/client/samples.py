"""Domain values to answer with."""

from datetime import UTC, datetime

import numpy as np

from fulcrum.domain.edits import Scale
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.identifiers import new_id
from fulcrum.domain.models import ModelRef, SaeInfo
from fulcrum.domain.provenance import Provenance
from fulcrum.domain.records import ImageRecord, ModelRecord, SaeRecord
from fulcrum.domain.results import (
    Attribution,
    Controls,
    DoseResponse,
    EditDiagnostics,
    Effect,
    LatentAttribution,
    Prediction,
    Suggestion,
)
from fulcrum.domain.tasks import MarginTarget

THEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = ("dog", "cat", "car")
IMAGE = ImageRecord(new_id("img"), "prj_1", "a" * 64, "image/png", 9, 4, 3, "dog <1>.png", "usr_1", THEN)
MODEL = ModelRecord(new_id("mdl"), "prj_1", "demo", ModelRef("folder:demo/clip"), "usr_1", THEN, "ready")
SAE = SaeRecord(
    new_id("sae"), "prj_1", "demo-sae", MODEL.id, "folder:demo/sae", "usr_1", THEN, "ready",
    SaeInfo("demo", "b" * 64, "topk", 8, 32, HookPoint("visual", 3, "resid_post"), "demo", {"fvu": 0.1}),
)  # fmt: skip
PROVENANCE = Provenance(
    "c" * 64, "b" * 64, "visual.blocks.3.resid_post", "d" * 64, "cpu", "float32", False, 1, 0.0, 1.5, True,
    "0.1.0", "2.6",
)  # fmt: skip
BEFORE = Prediction(NAMES, np.array([2.0, 1.0, -1.0]), np.array([0.7, 0.25, 0.05]))
AFTER = Prediction(NAMES, np.array([0.5, 1.5, -1.0]), np.array([0.3, 0.65, 0.05]))
ATTRIBUTION = Attribution(
    method="act_x_grad",
    target=MarginTarget("dog", "cat"),
    target_value=1.0,
    latents=(
        LatentAttribution(7, 0.8, 0.6, 3.0, 2, np.array([9.0, 1.0, 2.0, 3.0, 4.0])),
        LatentAttribution(3, -0.4, None, 1.0, 1, None),
    ),
    prediction=BEFORE,
    rank_agreement=0.9,
    completeness_residual=None,
    interaction_share=0.1,
    joint_effect=0.5,
    grid=(2, 2),
    has_cls=True,
    hook_point="visual.blocks.3.resid_post",
)
EFFECT = Effect(
    before=BEFORE,
    after=AFTER,
    diagnostics=EditDiagnostics((True,), True, np.array([0.1, 0.2]), 0.0, ((5, 0.25),), True),
    controls=(Controls("random_directions", np.array([0.1, -0.1]), 0, 1 / 3),),
    target=MarginTarget("dog", "cat"),
    target_before=1.0,
    target_after=-1.0,
)
CURVE = DoseResponse(
    np.array([0.0, 1.0]), np.array([[0.5, 1.5, -1.0], [2.0, 1.0, -1.0]]), NAMES, np.array([-1.0, 1.0]),
    MarginTarget("dog", "cat"), (0.0, 1.0), True,
)  # fmt: skip
SUGGESTION = Suggestion((Scale(7, 0.0),), True, 1.0, -1.0, True, (0.2, 0.4), -2.0)
