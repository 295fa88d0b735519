"""A tower as a stack of residual blocks, and the one way of cutting it in two."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulcrum.domain.errors import InvalidHookPoint
from fulcrum.domain.hook_points import HookPoint, Site
from fulcrum.science.vision.backend import timm_mlp
from fulcrum.science.vision.split import HookState

Reach = Literal["all", "cls", "patches"]
SITES: tuple[Site, ...] = ("resid_post", "mlp_out", "attn_out", "mlp_in")


@dataclass(frozen=True)
class TowerShape:
    """What is known of a vision tower unrun. Patches follow the `n_prefix_tokens` (CLS, registers)."""

    n_blocks: int
    d_model: int
    grid: tuple[int, int]  # rows, columns
    n_prefix_tokens: int
    has_cls: bool
    pooling: str
    # Tokens the pooling reads, so all that matter once the last attention has run.
    pooled: Reach

    @property
    def n_tokens(self) -> int:
        """Prefix tokens and patches."""
        return self.n_prefix_tokens + self.grid[0] * self.grid[1]

    @property
    def widest_product(self) -> int:
        """Multiplications for one image in the widest layer, an MLP of four times the tower's width."""
        return self.n_tokens * 4 * self.d_model**2


class BlockStack(ABC):
    """The blocks of one tower: `x + attention(x)`, then `+ mlp(...)`, each branch after its layer scale.

    `context` is what blocks share besides x: an attention mask or rotary embeddings. Nothing runs in place.
    """

    n_blocks: int

    @property
    def sites(self) -> tuple[Site, ...]:
        """Places in a block at which the tower can be cut: `mlp_in` only where every MLP is a plain one."""
        plain = all(plain_mlp(self.mlp_module(block)) for block in range(self.n_blocks))
        return SITES if plain else tuple(site for site in SITES if site != "mlp_in")

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """In which the blocks compute."""

    @abstractmethod
    def run_block(self, block: int, x: Tensor, context: Any) -> Tensor:
        """Residual stream after the block, by the model's own module."""

    def run_last_block(self, x: Tensor, context: Any) -> Tensor:
        """The stream after the last block, of the tokens that `head` reads: a tower that needs no others skips them."""
        return self.run_block(self.n_blocks - 1, x, context)

    def tokens_of_head(self, x: Tensor) -> Tensor:
        """Of activations within the last block, behind its attention: those that `head` reads."""
        return x

    @abstractmethod
    def attention(self, block: int, x: Tensor, context: Any) -> Tensor:
        """What the attention branch of the block adds to the residual stream x."""

    @abstractmethod
    def mlp_module(self, block: int) -> nn.Module:
        """The MLP itself."""

    @abstractmethod
    def mlp_reads(self, block: int, x: Tensor) -> Tensor:
        """What the MLP is given; x is the stream after the attention."""

    @abstractmethod
    def mlp_adds(self, block: int, out: Tensor) -> Tensor:
        """What is added to the stream for the output of the MLP."""

    def mlp(self, block: int, x: Tensor) -> Tensor:
        """What the MLP branch adds; x is the stream after the attention."""
        return self.mlp_adds(block, self.mlp_module(block)(self.mlp_reads(block, x)))

    def mlp_width(self, block: int) -> int:
        """Units of a plain MLP."""
        first, _ = _require_plain(self.mlp_module(block))
        return first.out_features


def plain_mlp(module: nn.Module) -> tuple[nn.Linear, tuple[nn.Module, ...]] | None:
    """First linear layer and what follows it, one after another; None for MLPs with gates or of another make."""
    if type(module) is nn.Sequential:  # OpenCLIP's
        parts: tuple[Any, ...] = tuple(module)
    elif type(module) is timm_mlp.Mlp:
        parts = (module.fc1, module.act, module.drop1, module.norm, module.fc2, module.drop2)
    else:
        return None
    return (parts[0], parts[1:]) if parts and isinstance(parts[0], nn.Linear) else None


def _require_plain(module: nn.Module) -> tuple[nn.Linear, tuple[nn.Module, ...]]:
    found = plain_mlp(module)
    if found is None:
        raise InvalidHookPoint(
            f"an MLP of type {type(module).__name__} has no units of its own: mlp_in needs them"
        )
    return found


def run_to(stack: BlockStack, hook_point: HookPoint, x: Tensor, context: Any) -> HookState:
    """From the embedded tokens to the hook point, and no further."""
    for block in range(hook_point.block):
        x = stack.run_block(block, x, context)
    match hook_point.site:
        case "resid_post":
            return HookState(stack.run_block(hook_point.block, x, context))
        case "attn_out":
            return HookState(stack.attention(hook_point.block, x, context), carry=x)
        case "mlp_out":
            x = x + stack.attention(hook_point.block, x, context)
            return HookState(stack.mlp(hook_point.block, x), carry=x)
        case "mlp_in":
            x = x + stack.attention(hook_point.block, x, context)
            first, _ = _require_plain(stack.mlp_module(hook_point.block))
            return HookState(first(stack.mlp_reads(hook_point.block, x)), carry=x)


def run_from(stack: BlockStack, hook_point: HookPoint, state: HookState, context: Any) -> Tensor:
    """From the hook point to the residual stream after the last block, of the tokens that `head` reads."""
    last = stack.n_blocks - 1
    # An SAE computes in float32; adding its result to a bf16 stream would promote everything behind it.
    x, carry = state.x.to(stack.dtype), state.carry
    if hook_point.block == last:
        x, carry = stack.tokens_of_head(x), None if carry is None else stack.tokens_of_head(carry)
    if hook_point.site != "resid_post":
        if carry is None:
            raise InvalidHookPoint(f"a state at {hook_point} needs the residual stream that it is added to")
        if hook_point.site == "mlp_in":
            _, rest = _require_plain(stack.mlp_module(hook_point.block))
            for module in rest:
                x = module(x)
            x = stack.mlp_adds(hook_point.block, x)
        x = carry + x
    if hook_point.site == "attn_out":
        x = x + stack.mlp(hook_point.block, x)
    return run_blocks(stack, hook_point.block + 1, x, context)


def run_blocks(stack: BlockStack, first: int, x: Tensor, context: Any) -> Tensor:
    """From the stream before block `first` to that behind the last one, of the tokens that `head` reads."""
    if first == stack.n_blocks:
        return x
    for block in range(first, stack.n_blocks - 1):
        x = stack.run_block(block, x, context)
    return stack.run_last_block(x, context)


def check_hook_point(hook_point: HookPoint, n_blocks: int, sites: tuple[Site, ...]) -> None:
    """Raises InvalidHookPoint for a block or site that the tower does not have."""
    if not 0 <= hook_point.block < n_blocks:
        raise InvalidHookPoint(
            f"hook point {hook_point} does not exist: the {hook_point.tower} tower has {n_blocks} blocks, "
            f"0 to {n_blocks - 1}"
        )
    if hook_point.site not in sites:
        raise InvalidHookPoint(
            f"hook point {hook_point} does not exist: the blocks of this tower offer {', '.join(sites)}"
        )


class VisionStack(BlockStack):
    """A stack which starts from images and ends in an embedding."""

    shape: TowerShape

    @abstractmethod
    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens d_model"]:
        """Input of block 0."""

    @abstractmethod
    def context(self) -> Any:
        """What the blocks share; does not depend on the images."""

    @abstractmethod
    def head(self, x: Float[Tensor, "batch tokens d_model"]) -> Float[Tensor, "batch d_embed"]:
        """Final norm, pooling and projection."""

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch d_embed"]:
        """The tower's own answer, not normalised, to float tolerance: tokens that nobody reads are not computed."""
        return self.head(run_blocks(self, 0, self.embed(images), self.context()))


class VisionSplit:
    """A vision tower cut at a hook point; see `SplitTower` for what is promised."""

    def __init__(self, stack: VisionStack, hook_point: HookPoint) -> None:
        check_hook_point(hook_point, stack.n_blocks, stack.sites)
        shape = stack.shape
        self.hook_point = hook_point
        self.d_in = stack.mlp_width(hook_point.block) if hook_point.site == "mlp_in" else shape.d_model
        self.n_tokens = shape.n_tokens
        self.n_prefix_tokens = shape.n_prefix_tokens
        self.grid = shape.grid
        self.has_cls = shape.has_cls
        self.widest_product = shape.widest_product
        last = hook_point.block == shape.n_blocks - 1
        # At every site of the last block all attention is behind us; what follows acts token by token.
        self.reaches_output: Reach = shape.pooled if last else "all"
        self._stack = stack

    def prefix(self, images: Float[Tensor, "batch 3 height width"]) -> HookState:
        """Activations of preprocessed images at the hook point; no later layer runs."""
        return run_to(self._stack, self.hook_point, self._stack.embed(images), self._stack.context())

    def suffix(self, state: HookState) -> Float[Tensor, "batch d_embed"]:
        """Image embedding, not normalised; no earlier layer runs. Differentiable in `state.x`."""
        return self._stack.head(run_from(self._stack, self.hook_point, state, self._stack.context()))
