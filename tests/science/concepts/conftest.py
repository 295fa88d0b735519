"""What the tests of heatmaps share, and the switch of shape checks."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor

from fulcrum.science.sae.base import SaeConfig
from fulcrum.science.sae.relu import ReluSae

from .fake_tower import FakeTower


@pytest.fixture
def tower() -> FakeTower:
    return FakeTower()


@pytest.fixture
def sae() -> ReluSae:
    g = torch.Generator().manual_seed(1)
    sae = ReluSae(SaeConfig("relu", d_in=6, d_sae=16)).double()
    with torch.no_grad():
        sae.W_enc.copy_(torch.randn(6, 16, generator=g, dtype=torch.float64))
        sae.W_dec.copy_(torch.randn(16, 6, generator=g, dtype=torch.float64))
        sae.b_enc.fill_(0.1)
    return sae


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture
def shape_checks_off() -> Iterator[None]:
    """What a user of the installed package meets: the domain error, not the test suite's shape checker."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
