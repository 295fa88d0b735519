"""Learning rate over a run."""


def learning_rate(step: int, n_steps: int, peak: float, warmup_share: float, decay_share: float) -> float:
    """Linear warm-up, constant, linear decay to (almost) zero; `step` counts from 0."""
    warmup = round(n_steps * warmup_share)
    decay = round(n_steps * decay_share)
    rising = (step + 1) / warmup if step < warmup else 1.0
    falling = (n_steps - step) / (decay + 1) if step >= n_steps - decay else 1.0
    return peak * min(rising, falling)
