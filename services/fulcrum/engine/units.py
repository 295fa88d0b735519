"""The units of a layer, asked for by name like an SAE: steering with experts that are no latents."""

import hashlib
import json

from fulcrum.domain.errors import SaeDoesNotFit
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.models import UNITS
from fulcrum.science.sae.base import Sae, SaeConfig
from fulcrum.science.sae.units import Units
from fulcrum.science.vision.loaded import LoadedModel
from fulcrum.science.vision.towers import split_tower


def units_of(text: str, loaded: LoadedModel) -> Sae:
    """`units:<hook point>`, such as `units:visual.blocks.3.mlp_in`.

    Raises InvalidHookPoint, and SaeDoesNotFit for the text tower, in which nothing is steered.
    """
    hook_point = HookPoint.parse(text.removeprefix(UNITS))
    if hook_point.tower != "visual":
        raise SaeDoesNotFit(f"{text[:80]!r}: units can be read and steered in the vision tower only")
    d_in = split_tower(loaded, hook_point).d_in
    config = SaeConfig(
        "units",
        d_in,
        d_in,
        hook_point=str(hook_point),
        model_name=loaded.info.ref.model_name,
        model_sha256=loaded.info.weights_sha256,
        preprocess_sha256=loaded.info.preprocess_sha256,
    )
    return Units(config).requires_grad_(False).eval()


def units_sha256(units: Sae) -> str:
    """Identity in corrections and results: the layer and its width, for there are no weights."""
    content = {"units": units.config.hook_point, "d_in": units.config.d_in}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
