"""The Python SDK: `Client` and `AsyncClient`, their answers, and the words to ask with.

    from fulcrum.client import Client, Scale

    why = Client().explain("dog.jpg", ["dog", "cat"])
    Client().steer(why, Scale(why.latents[0].latent, 0.0))

Each endpoint is written once, as a flow of steps (`steps`); `operations` make methods of flows, `wire` is the protocol
without the socket, `drivers` are the only two places that touch the network.
"""

from fulcrum.client.answers import (
    DoseCurve,
    DosePoints,
    Explanation,
    Predictions,
    Steering,
    Suggestions,
)
from fulcrum.client.client import AsyncClient, Client
from fulcrum.client.streams import AsyncStream, Stream
from fulcrum.domain.corrections import Correction, Origin
from fulcrum.domain.edits import (
    Add,
    Affine,
    Cap,
    Floor,
    LatentCondition,
    MarginCondition,
    MeanAblate,
    PredictedClassCondition,
    ProjectOut,
    Scale,
    Scope,
    SetTo,
)
from fulcrum.domain.evaluations import FlipFilter
from fulcrum.domain.models import ModelRef
from fulcrum.domain.tasks import ClassSet, CosineTarget, LogitTarget, LogProbTarget, MarginTarget

__all__ = [
    "Add",
    "Affine",
    "AsyncClient",
    "AsyncStream",
    "Cap",
    "ClassSet",
    "Client",
    "Correction",
    "CosineTarget",
    "DoseCurve",
    "DosePoints",
    "Explanation",
    "FlipFilter",
    "Floor",
    "LatentCondition",
    "LogProbTarget",
    "LogitTarget",
    "MarginCondition",
    "MarginTarget",
    "MeanAblate",
    "ModelRef",
    "Origin",
    "PredictedClassCondition",
    "Predictions",
    "ProjectOut",
    "Scale",
    "Scope",
    "SetTo",
    "Steering",
    "Stream",
    "Suggestions",
]
