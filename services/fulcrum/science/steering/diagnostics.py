"""Did an edit do what it says?"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fulcrum.domain.edits import ProjectOut
from fulcrum.domain.results import EditDiagnostics, FloatArray
from fulcrum.science.sae.base import Sae
from fulcrum.science.steering.edits import EditedActivations, EditPlan, encode_selected

# Dense latents held at once while the moved ones are looked for.
_CHUNK_VALUES = 50_000_000


@torch.no_grad()
def diagnose(
    sae: Sae,
    x: Float[Tensor, "n_images n_tokens d_in"],
    edited: EditedActivations,
    plan: EditPlan,
    index: int = 0,
    n_moved: int = 10,
) -> EditDiagnostics:
    """Diagnostics of plan number `index`; `x` are the unedited images that `edited` was made from.

    The re-encode check compares SAE(x') with z' at the edited latents and tokens in scope (not under
    `project_out`, which asks for no z'): an SAE need not encode what was written as it was meant.
    """
    row = int(edited.rows[index])
    before, after = x[row], edited.x[index]
    in_scope = edited.in_scope[index]
    column = {int(latent): i for i, latent in enumerate(edited.latents)}
    fired = tuple(
        bool((edited.z[row, in_scope, column[edit.latent]] != 0).any().item()) for edit in plan.edits
    )

    asked = [e.latent for e in plan.edits if not isinstance(e, ProjectOut)]
    reencode_error = 0.0
    if asked and bool(in_scope.any()):
        latents = torch.tensor(asked, device=x.device)
        z_after = encode_selected(sae, after[None].to(sae.W_dec.dtype), latents)[0, in_scope]
        z_asked = edited.z_edited[index][:, [column[n] for n in asked]][in_scope]
        reencode_error = float((z_after - z_asked).abs().max())

    changed = bool(edited.changed[index].any())
    return EditDiagnostics(
        fired=fired,
        condition_met=bool(edited.conditions_met[index]),
        relative_change=_relative_change(before, after),
        reencode_error=reencode_error,
        moved_latents=_moved(sae, before, after, {e.latent for e in plan.edits}, n_moved) if changed else (),
        changed=changed,
    )


def _relative_change(
    before: Float[Tensor, "n_tokens d_in"], after: Float[Tensor, "n_tokens d_in"]
) -> FloatArray:
    """`|x' - x| / |x|` per token; 0 where nothing changed and inf where something came out of nothing."""
    change = (after.double() - before.double()).norm(dim=1).cpu().numpy()
    size = before.double().norm(dim=1).cpu().numpy()
    relative = np.full_like(change, np.inf)
    np.divide(change, size, out=relative, where=size > 0)
    return np.where(change > 0, relative, 0.0)


def _moved(
    sae: Sae,
    before: Float[Tensor, "n_tokens d_in"],
    after: Float[Tensor, "n_tokens d_in"],
    edited_latents: set[int],
    n_moved: int,
) -> tuple[tuple[int, float], ...]:
    """Unedited latents by the change of their image maximum."""
    change = _image_maxima(sae, after) - _image_maxima(sae, before)
    if edited_latents:
        change[sorted(edited_latents)] = 0
    order = torch.sort(change.abs(), descending=True, stable=True).indices[:n_moved]
    return tuple((int(j), float(change[j])) for j in order if change[j] != 0)


def _image_maxima(sae: Sae, x: Float[Tensor, "n_tokens d_in"]) -> Float[Tensor, " d_sae"]:
    chunk = max(1, _CHUNK_VALUES // sae.config.d_sae)
    precise = x.to(sae.W_dec.dtype)
    parts = [sae.encode(precise[i : i + chunk]).amax(dim=0) for i in range(0, len(precise), chunk)]
    return torch.stack(parts).amax(dim=0)
