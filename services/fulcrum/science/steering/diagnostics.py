"""Did an edit do what it says?"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fulcrum.domain.edits import ProjectOut
from fulcrum.domain.results import EditDiagnostics, FloatArray
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import SparseLatents
from fulcrum.science.steering.edits import EditedActivations, EditPlan

# Dense latents held at once while the tokens that an edit changed are encoded again.
_CHUNK_VALUES = 50_000_000


@torch.no_grad()
def diagnose(
    sae: Sae,
    x: Float[Tensor, "n_images n_tokens d_in"],
    edited: EditedActivations,
    plan: EditPlan,
    index: int = 0,
    n_moved: int = 10,
    sparse: SparseLatents | None = None,
) -> EditDiagnostics:
    """Diagnostics of plan number `index`; `x` are the unedited images that `edited` was made from.

    The re-encode check compares SAE(x') with z' at the edited latents and tokens in scope (not under
    `project_out`, which asks for no z'): an SAE need not encode what was written as it was meant. Only tokens that
    the edit changed are encoded again; `sparse` may bring the latents of the plan's image as it was.
    """
    row = int(edited.rows[index])
    before, after = x[row], edited.x[index]
    in_scope = edited.in_scope[index]
    column = {int(latent): i for i, latent in enumerate(edited.latents)}
    fires = (edited.z[row][in_scope] != 0).any(dim=0).tolist()
    fired = tuple(fires[column[edit.latent]] for edit in plan.edits)

    asked = [e.latent for e in plan.edits if not isinstance(e, ProjectOut)]
    touched = edited.changed[index]
    changed = bool(touched.any())
    maxima, z_touched = _encode_again(sae, after[touched], asked) if changed else (None, None)
    reencode_error = 0.0
    if asked and bool(in_scope.any()):
        columns = [column[n] for n in asked]
        z_after = edited.z[row][:, columns]
        if z_touched is not None:
            z_after[touched] = z_touched
        z_asked = edited.z_edited[index][:, columns]
        reencode_error = float((z_after - z_asked)[in_scope].abs().max())

    moved: tuple[tuple[int, float], ...] = ()
    if maxima is not None:
        if sparse is None:
            sparse = sae.encode_sparse(before.to(sae.W_dec.dtype))
        # Another token's largest value stays what it was, bit for bit.
        change = torch.maximum(maxima, sparse.maxima(~touched)) - sparse.maxima()
        moved = _moved(change, {e.latent for e in plan.edits}, n_moved)
    return EditDiagnostics(
        fired=fired,
        condition_met=bool(edited.conditions_met[index]),
        relative_change=_relative_change(before, after),
        reencode_error=reencode_error,
        moved_latents=moved,
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


def _encode_again(
    sae: Sae, x: Float[Tensor, "n_tokens d_in"], latents: list[int]
) -> tuple[Float[Tensor, " d_sae"], Float[Tensor, "n_tokens n"]]:
    """Largest value of every latent over these tokens, and the values of the chosen latents at each of them."""
    precise = x.to(sae.W_dec.dtype)
    maxima, chosen = [], []
    for part in torch.split(precise, max(1, _CHUNK_VALUES // sae.config.d_sae)):
        z = sae.encode(part)
        maxima.append(z.amax(dim=0))
        chosen.append(z[:, latents])
    return torch.stack(maxima).amax(dim=0), torch.cat(chosen)


def _moved(
    change: Float[Tensor, " d_sae"], edited_latents: set[int], n_moved: int
) -> tuple[tuple[int, float], ...]:
    """Unedited latents by the change of their image maximum."""
    if edited_latents:
        change[sorted(edited_latents)] = 0
    # Few latents of many have changed, and only those have to be ranked.
    latents = torch.nonzero(change).flatten()
    latents = latents[torch.sort(change[latents].abs(), descending=True, stable=True).indices[:n_moved]]
    return tuple(zip(latents.tolist(), change[latents].double().tolist(), strict=True))
