"""Learning rate over a run."""


def learning_rate(
    step: int, n_steps: int, peak: float, warmup_share: float, decay_share: float, end: int | None = None
) -> float:
    """Linear warm-up, constant, linear decay to (almost) zero; `step` counts from 0.

    A run that ends early, at step `end`, decays as long as one that does not.
    """
    end = n_steps if end is None else end
    warmup = round(n_steps * warmup_share)
    decay = round(n_steps * decay_share)
    rising = (step + 1) / warmup if step < warmup else 1.0
    falling = (end - step) / (decay + 1) if step >= end - decay else 1.0
    return peak * min(rising, falling)
