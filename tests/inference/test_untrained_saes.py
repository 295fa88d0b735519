"""Untrained SAEs by the names that callers give them."""

import pytest
from tests.inference.running import MODEL

from fulcrum.domain.errors import InvalidInput, NotFound


@pytest.mark.parametrize(
    "shape",
    ["topk:²:4", "topk:64:²", "topk:64:" + "9" * 5000, "topk:-1:4", "topk:0:1", "topk:64:0", "topk:64:65"],
)
def test_an_untrained_sae_of_no_size_is_refused_with_words(service, shape):
    with service.client() as client, pytest.raises((InvalidInput, NotFound)):
        client.load_sae(f"untrained:{shape}", MODEL)


def test_an_untrained_sae_at_no_block_is_refused_with_words(service):
    for block in ("9" * 5000, "²", "-1"):
        with service.client() as client, pytest.raises(InvalidInput):
            client.load_sae(f"untrained:topk:64:4@visual.blocks.{block}.resid_post", MODEL)
