"""How a number came about: enough to compute it again and to see why it took its time."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Provenance:
    """Travels with every answer of the inference service and is stored with every result."""

    model_sha256: str  # of the weights
    sae_sha256: str | None  # None where no SAE took part
    hook_point: str | None
    preprocess_sha256: str
    device: str
    dtype: str
    deterministic: bool  # the same bits alone or beside other requests
    batch_size: int  # rows of the largest forward that this request rode in
    queue_ms: float  # waiting for the device, summed over the forwards of the request
    compute_ms: float  # inside the engine without that waiting
    prefix_cached: bool  # the image's activations at the hook point were kept from before
    fulcrum_version: str
    torch_version: str


@dataclass(frozen=True)
class Answered(Generic[T]):
    """A value with its provenance."""

    value: T
    provenance: Provenance
