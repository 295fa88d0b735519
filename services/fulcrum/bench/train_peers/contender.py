"""What the benchmark asks of a trainer, its own and the public ones."""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

BenchVariant = Literal["topk", "batch_topk", "matryoshka"]


@dataclass(frozen=True)
class Spec:
    """One contender's task; equal for all but the name."""

    contender: str
    variant: BenchVariant
    d_in: int
    d_sae: int
    k: int
    batch_size: int
    n_tokens: int
    learning_rate: float
    seed: int
    threads: int
    activations: str | None = None

    @property
    def n_steps(self) -> int:
        """Whole batches only."""
        return max(1, self.n_tokens // self.batch_size)

    @property
    def warmup_steps(self) -> int:
        """A twentieth of the run, for everybody."""
        return round(0.05 * self.n_steps)

    @property
    def decay_steps(self) -> int:
        """The last fifth of the run, for everybody."""
        return round(0.2 * self.n_steps)

    @property
    def dead_after(self) -> int:
        """Tokens without firing after which AuxK counts a latent as dead, for everybody."""
        return max(16 * self.batch_size, min(10_000_000, self.n_tokens // 20))

    @property
    def prefixes(self) -> list[int]:
        """Matryoshka widths."""
        return [self.d_sae // 8, self.d_sae // 4, self.d_sae // 2, self.d_sae]

    def rate(self, step: int) -> float:
        """Learning rate for trainers that leave it to the caller."""
        rising = (step + 1) / self.warmup_steps if step < self.warmup_steps else 1.0
        left = self.n_steps - step
        falling = left / (self.decay_steps + 1) if left <= self.decay_steps else 1.0
        return self.learning_rate * min(rising, falling)


class Contender(Protocol):
    """A trainer fed batch by batch."""

    def prepare(self, x: Tensor) -> None:
        """Whatever it does with activations before the first step; its time counts."""
        ...

    def update(self, x: Tensor) -> None:
        """One optimiser step, with everything its own training loop does per step."""
        ...

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`x_hat` in the units of x, and which latents are active: bool (n, d_sae)."""
        ...
