from itertools import zip_longest

import numpy as np
import pytest
import torch

from fulcrum.demo.shipped import demo_model, demo_task
from fulcrum.domain.hook_points import HookPoint
from fulcrum.engine import training
from fulcrum.engine.image_batches import BATCH_SIZE, image_batches
from fulcrum.engine.training import DatasetActivations, quality_card
from fulcrum.science.sae.training.config import TrainConfig
from fulcrum.science.sae.training.ranks import Ranks
from fulcrum.science.sae.training.trainer import train_sae

HOOK = HookPoint.parse("visual.blocks.2.resid_post")


@pytest.fixture
def loaded(engine):
    return engine.residency.model(demo_model())


def epoch(source, start=0):
    return torch.cat(list(source.read(start)))


def test_tokens_can_be_read_again_from_anywhere(loaded, small_world):
    numbers = np.arange(40)
    source = DatasetActivations(loaded, HOOK, small_world, numbers)
    whole = epoch(source)
    assert whole.shape == (source.n_tokens, source.d_in)
    for start in (0, 1, source.tokens_per_image, 500, source.n_tokens - 1):
        assert (epoch(source, start) == whole[start:]).all()


def test_of_several_processes_each_runs_its_own_images_as_one_stream(loaded, small_world, monkeypatch):
    numbers = np.arange(150)
    whole = epoch(DatasetActivations(loaded, HOOK, small_world, numbers, seed=1))
    asked = []

    def counted(loaded, dataset, numbers):
        asked.append(list(numbers))
        return image_batches(loaded, dataset, numbers)

    monkeypatch.setattr(training, "image_batches", counted)
    parts = [
        DatasetActivations(loaded, HOOK, small_world, numbers, seed=1, ranks=Ranks(rank, 2))
        for rank in (0, 1)
    ]
    segment = BATCH_SIZE * parts[0].tokens_per_image
    read = [epoch(part).split(segment) for part in parts]
    in_turn = [rows for pair in zip_longest(*read) for rows in pair if rows is not None]
    assert (torch.cat(in_turn) == whole).all()
    # Nothing was run twice, or asked for in more than one piece, which would look for what is kept again and again.
    assert len(asked) == 2
    assert sorted(asked[0] + asked[1]) == list(numbers)


@pytest.mark.parametrize("budget", [0, 100_000])
def test_what_does_not_fit_the_budget_is_computed_again_to_the_same_numbers(loaded, small_world, budget):
    numbers = np.arange(40)
    kept = DatasetActivations(loaded, HOOK, small_world, numbers)
    tight = DatasetActivations(loaded, HOOK, small_world, numbers, cache_budget_bytes=budget)
    assert (epoch(tight) == epoch(kept)).all()
    assert (epoch(tight, 777) == epoch(kept, 777)).all()


def test_a_trained_sae_beats_its_untrained_twin_on_held_out_images(engine, loaded, small_world):
    source = DatasetActivations(loaded, HOOK, small_world, np.flatnonzero(small_world.splits != "confirm"))
    config = TrainConfig(
        variant="topk", d_in=source.d_in, d_sae=256, n_tokens=60_000, k=12, batch_size=512,
        buffer_tokens=4096, hook_point=str(HOOK), model_sha256=loaded.info.weights_sha256,
    )  # fmt: skip
    sae, report = train_sae(config, source)
    assert report.completed
    held_out = np.flatnonzero(small_world.splits == "confirm")
    card = quality_card(loaded, sae, small_world, held_out, engine.residency.head(demo_model(), demo_task()))
    assert card.trained.fvu < 0.7 * card.untrained.fvu
    assert card.model.ce_recovered > card.model_untrained.ce_recovered
    assert set(card.flat()) >= {"fvu", "untrained_fvu", "ce_recovered", "top1_agreement"}
