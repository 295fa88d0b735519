"""Staged selection is exact."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.science.sae import selection
from fulcrum.science.sae.selection import batch_top_k, top_k


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 5),
    d_sae=st.sampled_from([5, 256, 257, 264, 320, 512, 1024, 4104]),
    k=st.integers(1, 40),
    tied=st.booleans(),
    direct_values=st.sampled_from([0, selection._DIRECT_VALUES]),
)
def test_staged_selection_finds_the_largest_values_of_every_row(
    seed: int, n: int, d_sae: int, k: int, tied: bool, direct_values: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    pre = torch.randn(n, d_sae, generator=generator)
    if tied:
        pre = pre.round()
    k = min(k, d_sae)
    with patch.object(selection, "_DIRECT_VALUES", direct_values):
        values, latents = top_k(pre, k)
    expected = torch.sort(pre, dim=1, descending=True).values[:, :k]
    assert torch.equal(torch.sort(values, dim=1, descending=True).values, expected)
    assert torch.equal(pre.gather(1, latents), values)
    assert all(len(set(row.tolist())) == k for row in latents)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n_keep=st.integers(1, 60), guess=st.floats(-4, 6))
def test_the_batch_selection_does_not_depend_on_the_guessed_threshold(
    seed: int, n_keep: int, guess: float
) -> None:
    pre = torch.randn(6, 50, generator=torch.Generator().manual_seed(seed))
    values, flat = batch_top_k(pre, n_keep, guess)
    expected = pre.flatten().sort(descending=True).values[:n_keep]
    assert torch.equal(values.sort(descending=True).values, expected)
    assert torch.equal(pre.flatten()[flat], values)
    assert torch.equal(flat, flat.sort().values)


@pytest.mark.parametrize("n", [1, 40])
def test_staged_selection_keeps_nan_visible(n: int) -> None:
    pre = torch.zeros(n, 1024)
    pre[0, 700] = torch.nan
    values, _ = top_k(pre, 4)
    assert values.isnan().any()


@pytest.mark.parametrize("width", [1024, 1025])
def test_all_columns_can_win(width: int) -> None:
    pre = torch.eye(width)
    _, latents = top_k(pre, 1)
    assert latents.squeeze(1).tolist() == list(range(width))
