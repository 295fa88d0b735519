"""The interactive loop against a full forward per question, which is what other tools do."""

from typing import Any

import torch
from torch import Tensor

from fulcrum.bench.measure import environment, interleaved, ratio
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import ComputationFailed
from fulcrum.domain.models import ModelRef
from fulcrum.domain.tasks import ClassSet, MarginTarget
from fulcrum.engine.residency import Residency
from fulcrum.science.attribution.act_x_grad import act_x_grad
from fulcrum.science.attribution.targets import target_function
from fulcrum.science.steering.edits import EditPlan, apply_edits
from fulcrum.science.steering.forward import steered_embeddings
from fulcrum.science.vision.split import HookState

_GAINS = tuple(i / 10 for i in range(21))
_LATENTS = 3


def bench_steer(ref: ModelRef, rounds: int, threads: int, device: str) -> dict[str, Any]:
    """Ratios for one image at the middle block, an untrained TopK SAE of 4096 latents.

    * `sweep_vs_full`: 21 full steered forwards, one per gain, over one sweep from the cached prefix.
    * `sweep_vs_batched_full`: the 21 forwards as one batch, over the same sweep.
    * `split_vs_encode`: prefix + suffix over `encode_image` of the same batch (1 is no overhead).
    * `attribution_in_suffix_forwards`: act_x_grad of one image over one suffix forward of it.
    """
    torch.set_num_threads(threads)
    residency = Residency(device)
    steerable = residency.steerable(ref, "untrained:topk:4096:32")
    loaded, tower, sae = steerable.loaded, steerable.tower, steerable.sae
    head = residency.head(ref, ClassSet(("dog", "cat", "car", "tree")))
    size = loaded.info.image_size
    images = torch.randn(32, 3, size, size, generator=torch.Generator().manual_seed(0)).to(loaded.device)
    image = images[:1]
    with torch.no_grad():
        state = tower.prefix(image)
        latents = sae.encode(state.x[0]).amax(dim=0).topk(_LATENTS).indices.tolist()
    plans = [EditPlan(tuple(Scale(n, gain) for n in latents)) for gain in _GAINS]
    y = target_function(head, MarginTarget("dog", "cat"))

    def sweep() -> Tensor:
        return steered_embeddings(tower, state, sae, plans).after

    @torch.no_grad()
    def full(plan: EditPlan) -> Tensor:
        now = tower.prefix(image)
        edited = apply_edits(tower, sae, now.x, [plan]).x
        return tower.suffix(HookState(edited, now.carry))

    def full_forwards() -> Tensor:
        return torch.cat([full(plan) for plan in plans])

    @torch.no_grad()
    def batched_full() -> Tensor:
        now = tower.prefix(image.expand(len(plans), -1, -1, -1))
        edited = apply_edits(tower, sae, now.x, plans).x
        return tower.suffix(HookState(edited, now.carry))

    @torch.no_grad()
    def split() -> Tensor:
        return tower.suffix(tower.prefix(images))

    @torch.no_grad()
    def encode() -> Tensor:
        embeddings: Tensor = loaded.model.encode_image(images, normalize=False)
        return embeddings

    with torch.no_grad():
        sparse = sae.encode_sparse(state.x[0])

    def attribute() -> Tensor:
        return act_x_grad(tower, state, sae, y, sparse=sparse).values

    @torch.no_grad()
    def suffix() -> Tensor:
        return tower.suffix(state)

    answers = {
        "sweep against full forwards": (sweep(), full_forwards()),
        "batched against full forwards": (batched_full(), full_forwards()),
        "split against encode_image": (split(), encode()),
    }
    differences = {name: float((a - b).abs().max()) for name, (a, b) in answers.items()}
    scale = float(encode().abs().max())
    for name, difference in differences.items():
        if difference > 1e-3 * scale:
            raise ComputationFailed(
                f"{name}: embeddings differ by {difference:g}, so their times mean nothing"
            )
    results = interleaved(
        {"sweep": sweep, "full_forwards": full_forwards, "batched_full": batched_full}, rounds
    )
    results |= interleaved({"split": split, "encode_image": encode}, 2 * rounds)
    results |= interleaved({"attribution": attribute, "suffix": suffix}, 6 * rounds)
    return {
        "benchmark": "steer",
        "model": ref.model_name.rpartition("/")[2],
        "random_weights": ref.random_weights,
        "hook_point": str(tower.hook_point),
        "gains": list(_GAINS),
        "ratios": {
            "sweep_vs_full": ratio(results, "full_forwards", "sweep", device),
            "sweep_vs_batched_full": ratio(results, "batched_full", "sweep", device),
            "split_vs_encode": ratio(results, "split", "encode_image", device),
            "attribution_in_suffix_forwards": ratio(results, "attribution", "suffix", device),
        },
        "largest_difference": differences,
        "contenders": results,
        **environment(threads, device),
    }
