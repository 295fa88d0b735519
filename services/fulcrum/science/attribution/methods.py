"""Every attribution method by its name."""

from collections.abc import Callable

from fulcrum.domain.results import AttributionMethod
from fulcrum.science.attribution.ablation import ablation
from fulcrum.science.attribution.act_x_grad import act_x_grad
from fulcrum.science.attribution.integrated_gradients import integrated_gradients
from fulcrum.science.attribution.scores import Scores

# All take (tower, state, sae, target, *, tokens=None, sparse=None); `integrated_gradients` also `n_steps` and
# `batch_size`, `ablation` also `latents` and `batch_size`.
METHODS: dict[AttributionMethod, Callable[..., Scores]] = {
    "act_x_grad": act_x_grad,
    "integrated_gradients": integrated_gradients,
    "ablation": ablation,
}
