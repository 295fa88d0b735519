import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.science.sae.sparse import HeldLatents, SparseLatents


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4), st.sampled_from([0.0, 0.2, 1.0]))
def test_columns_of_chosen_images_equal_those_of_the_dense_latents(seed, n_images, n_tokens, density):
    generator = torch.Generator().manual_seed(seed)
    shape = (n_images * n_tokens, 7)
    z = torch.rand(shape, generator=generator) * (torch.rand(shape, generator=generator) < density)
    held = HeldLatents(SparseLatents.from_dense(z), n_tokens)
    images = torch.randint(n_images, (3,), generator=generator)
    latents = torch.randperm(7, generator=generator)[:4].sort().values
    wanted = z.view(n_images, n_tokens, 7)[images][:, :, latents]
    assert torch.equal(held(images, latents), wanted)


def test_no_images_or_no_latents_give_empty_columns():
    held = HeldLatents(SparseLatents.from_dense(torch.ones(4, 3)), 2)
    none = torch.zeros(0, dtype=torch.long)
    assert held(none, torch.tensor([1])).shape == (0, 2, 1)
    assert held(torch.tensor([0, 1]), none).shape == (2, 2, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.0, 0.4, 1.0]), st.booleans())
def test_maxima_equal_those_of_the_dense_latents_over_chosen_tokens(seed, n_tokens, density, both_signs):
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(n_tokens, 7, generator=generator) - (0.5 if both_signs else 0.0)
    z = z * (torch.rand(n_tokens, 7, generator=generator) < density)
    sparse = SparseLatents.where(z, z != 0)
    assert torch.equal(sparse.maxima(), z.amax(0))
    tokens = torch.rand(n_tokens, generator=generator) < 0.5
    wanted = z[tokens].amax(0) if bool(tokens.any()) else torch.full((7,), -torch.inf)
    assert torch.equal(sparse.maxima(tokens), wanted)
