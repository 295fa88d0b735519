"""A failure group and clean images held at the hook point: evaluates edit sets and ranks further edits.

An edit set changes an image only through those of its edits which fire in it. So answers are kept by image
and by the edits that act there, and a set that differs from known ones by a latent costs only the images
where that latent fires.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulcrum.domain.edits import Edit, ProjectOut, Scale, Scope, acts_only_where_it_fires
from fulcrum.domain.errors import InvalidDataset, InvalidSettings
from fulcrum.science.attribution.active import ActiveLatents
from fulcrum.science.attribution.gradients import along_directions, suffix_gradient
from fulcrum.science.attribution.targets import TargetFunction, ZeroShotHead
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.sparse import HeldLatents, SparseLatents
from fulcrum.science.search.group import Edits, GroupEvaluation
from fulcrum.science.steering.edits import EditPlan, apply_edits
from fulcrum.science.steering.forward import steered_embeddings
from fulcrum.science.steering.scopes import check_reaches_output, scope_tokens
from fulcrum.science.vision.split import HookState, SplitTower


class HeldGroup:
    """Images of `state` with their classes; `in_group` marks the failure group, the rest are clean ones.

    All activations stay in memory, once: n_images x n_tokens x d_in numbers. An instance is `evaluate`, and
    its `rank` is the other callable of `group_search`. `labels` are class numbers of `head`.
    Raises InvalidDataset when labels or marks do not fit, EditCannotReachOutput for the scope.
    """

    def __init__(
        self,
        tower: SplitTower,
        sae: Sae,
        state: HookState,
        head: ZeroShotHead,
        labels: Sequence[int] | Int[np.ndarray, " n_labels"],
        in_group: Sequence[bool] | Bool[np.ndarray, " n_marks"],
        *,
        scope: Scope | None = None,
        gain: float = 0.0,
        clean_weight: float = 1.0,
        batch_size: int = 64,
        sparse: SparseLatents | None = None,
    ) -> None:
        n = state.x.shape[0]
        self.labels = torch.as_tensor(np.asarray(labels), device=state.x.device)
        self.in_group = np.asarray(in_group, dtype=bool)
        if self.labels.shape != (n,) or self.in_group.shape != (n,):
            raise InvalidDataset(
                f"{n} images need {n} labels and marks, got {len(labels)} and {len(in_group)}"
            )
        n_classes = len(head.class_names)
        if n_classes < 2 or not bool(((self.labels >= 0) & (self.labels < n_classes)).all()):
            raise InvalidDataset(f"labels must be class numbers 0 .. {n_classes - 1} of at least two classes")
        if gain == 1:
            raise InvalidSettings("a gain of 1 changes nothing: nothing can be searched with it")
        self.tower, self.sae, self.state, self.head = tower, sae, state, head
        self.scope = scope or Scope()
        check_reaches_output(tower, self.scope)
        self.gain, self.clean_weight, self.batch_size = gain, clean_weight, batch_size
        tokens = scope_tokens(tower, self.scope, state.x.device)
        if sparse is None:
            with torch.no_grad():
                sparse = sae.encode_sparse(state.x.to(sae.W_dec.dtype).flatten(0, 1))
        self._held = HeldLatents(sparse, state.x.shape[1])
        self.active = ActiveLatents.of(tower, sae, state.x, tokens, sparse)
        rows, latents, _ = self.active.pairs()
        self._fires = {
            int(latent): set(images.tolist())
            for latent, images in _grouped(latents.cpu().numpy(), rows.cpu().numpy())
        }
        steered = steered_embeddings(tower, state, sae, [], [], batch_size=batch_size)
        self.before = steered.before
        with torch.no_grad():
            self._untouched = self._margins(np.arange(n))(self.before).double().cpu().numpy()
        self._known: dict[tuple[int, Edits], float] = {}
        self._harm: dict[int, float] | None = None
        self.n_forward_rows = n

    def __call__(self, edit_sets: Sequence[Edits]) -> GroupEvaluation:
        """All edit sets on all images; only what is not known yet goes through the model, in full batches."""
        keys: list[list[tuple[int, Edits]]] = [self._acting(edits) for edits in edit_sets]
        new = list(dict.fromkeys(key for row in keys for key in row if key not in self._known))
        if new:
            images = np.array([image for image, _ in new])
            plans: dict[Edits, EditPlan] = {}
            steered = steered_embeddings(
                self.tower,
                self.state,
                self.sae,
                [plans.setdefault(edits, EditPlan(edits, self.scope)) for _, edits in new],
                images.tolist(),
                before=self.before,
                batch_size=self.batch_size,
                held=self._held,
            )
            self.n_forward_rows += int(steered.changed.sum())
            with torch.no_grad():
                margins = self._margins(images)(steered.after).double().tolist()
            self._known.update(zip(new, margins, strict=True))
        margin = np.tile(self._untouched, (len(edit_sets), 1))
        for i, row in enumerate(keys):
            for key in row:
                margin[i, key[0]] = self._known[key]
        correct = margin > 0
        return GroupEvaluation(
            correct[:, self.in_group],
            correct[:, ~self.in_group],
            margin[:, self.in_group].mean(axis=1) if self.in_group.any() else None,
        )

    def rank(self, edits: Edits, failing: Int[np.ndarray, " n"]) -> list[Edit]:
        """Scale edits by mean estimated gain of margin over the failing images, net of harm to clean ones.

        One backward pass per failing image, from activations with `edits` made; a latent's harm is its mean
        estimated loss of margin over the clean images (unedited, computed once), times `clean_weight`.
        Latents which are not estimated to help the failing images are left out.
        """
        images = np.flatnonzero(self.in_group)[failing]
        if len(images) == 0:
            return []
        help_ = {latent: total / len(images) for latent, (total, _) in self._effects(images, edits).items()}
        if self._harm is None:
            clean = np.flatnonzero(~self.in_group)
            effects = self._effects(clean, ()) if self.clean_weight and len(clean) else {}
            self._harm = {latent: lost / len(clean) for latent, (_, lost) in effects.items()}
        net = {
            latent: value - self.clean_weight * self._harm.get(latent, 0.0)
            for latent, value in help_.items()
            if value > 0
        }
        edited = {e.latent for e in edits}
        order = sorted((n for n in net if n not in edited), key=lambda latent: (-net[latent], latent))
        return [Scale(latent, self.gain) for latent in order]

    def _acting(self, edits: Edits) -> list[tuple[int, Edits]]:
        """Images that the edits touch, each with those that act in it."""
        everywhere = [e for e in edits if not acts_only_where_it_fires(e) or isinstance(e, ProjectOut)]
        if everywhere:
            touched: set[int] = set(range(len(self.labels)))
        else:
            touched = set().union(*(self._fires.get(e.latent, set()) for e in edits))
        always = {e.latent for e in everywhere}
        # Sorted, so that the same edits found in another order are the same set.
        ordered = sorted(edits, key=lambda e: e.latent)
        return [
            (
                image,
                tuple(e for e in ordered if e.latent in always or image in self._fires.get(e.latent, set())),
            )
            for image in sorted(touched)
        ]

    def _margins(self, images: Int[np.ndarray, " n"]) -> TargetFunction:
        """Margin of each image's own class over the best other, for rows in this order."""
        labels = self.labels[torch.as_tensor(images, device=self.labels.device)]

        def margin(embeddings: Float[Tensor, "n d_embed"]) -> Float[Tensor, " n"]:
            logits = self.head.logits(embeddings)
            own = logits.gather(1, labels[:, None])[:, 0]
            return own - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)

        return margin

    def _effects(self, images: Int[np.ndarray, " n"], edits: Edits) -> dict[int, tuple[float, float]]:
        """`(sum of IE, sum of its losses)` over the images, of every latent that fires in one of them."""
        total: dict[int, tuple[float, float]] = {}
        plan = EditPlan(edits, self.scope)
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            index = torch.as_tensor(part, device=self.labels.device)
            state = self.state.rows(index)
            if edits:
                state = state.with_x(apply_edits(self.tower, self.sae, state.x, [plan] * len(part)).x)
            _, gradient = suffix_gradient(self.tower, state, self._margins(part))
            active = self._active_of(part)
            # z of the unedited image, as every edit has it; the gradient where the model now stands.
            effect = (self.gain - 1) * along_directions(active, gradient, self.sae).double()
            _, latents, pair = active.pairs()
            summed = torch.zeros(len(latents), dtype=torch.float64, device=effect.device)
            summed.index_add_(0, pair, effect)
            for latent, value in zip(latents.tolist(), summed.tolist(), strict=True):
                gain, loss = total.get(latent, (0.0, 0.0))
                total[latent] = (gain + value, loss + max(0.0, -value))
        return total

    def _active_of(self, images: Int[np.ndarray, " n"]) -> ActiveLatents:
        parts = [self.active.entries_of(int(image)) for image in images]
        counts = torch.tensor([p.stop - p.start for p in parts])
        rows = torch.repeat_interleave(torch.arange(len(parts)), counts).to(self.active.rows.device)
        return ActiveLatents(
            rows,
            torch.cat([self.active.tokens[p] for p in parts]),
            torch.cat([self.active.latents[p] for p in parts]),
            torch.cat([self.active.values[p] for p in parts]),
            len(parts),
            self.active.n_tokens,
            self.active.d_sae,
        )


def _grouped(
    keys: Int[np.ndarray, " n"], values: Int[np.ndarray, " n"]
) -> list[tuple[int, Int[np.ndarray, " m"]]]:
    """Values by key."""
    order = np.argsort(keys, kind="stable")
    distinct, first = np.unique(keys[order], return_index=True)
    return list(zip(distinct.tolist(), np.split(values[order], first[1:]), strict=True)) if len(keys) else []
