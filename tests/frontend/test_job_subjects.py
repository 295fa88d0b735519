"""What jobs are about, in words."""

from typing import get_args

import pytest

from fulcrum.domain.jobs import (
    DescribeConcepts,
    FindExperts,
    ImportDataset,
    IndexDataset,
    InteractCorrections,
    JobSpec,
    SuggestCorrection,
    SweepCorrection,
    TrainSae,
    ValidateCorrection,
    VersionOf,
    Where,
)
from fulcrum_ui.parts.job_subjects import subject

NAMES = {"dat_1": "Signs", "sae_1": "mine", "cor_1": "no stickers", "cor_2": "no frames"}
SAID = {
    ImportDataset("dat_1", "folder:lab"): "Signs",
    IndexDataset("dat_1", "sae_1"): "Signs",
    DescribeConcepts("sae_1", "dat_1"): "mine on Signs",
    TrainSae("dat_1", "mod_1", "new"): "new on Signs",
    SuggestCorrection("dat_1", "sae_1", (Where("kind", "attack"),)): "kind = attack on Signs",
    InteractCorrections(
        (VersionOf("cor_1", 1), VersionOf("cor_2", 1)), "dat_1"
    ): "no stickers, no frames on Signs",
    SweepCorrection("cor_1", 1, "dat_1", (0.0,)): "no stickers on Signs, select",
    FindExperts("latents", "mod_1", "planted"): "planted",
    FindExperts("latents", "mod_1", dataset_id="dat_1"): "Signs",
}


@pytest.mark.parametrize("spec", SAID, ids=lambda s: s.kind)
def test_a_job_is_told_by_the_names_that_people_gave(spec):
    assert subject(spec, NAMES) == SAID[spec]


def test_a_validation_says_which_split_it_looks_at_also_when_all_else_is_gone():
    spec = ValidateCorrection("cor_1", 1, "dat_1", split="confirm")
    assert subject(spec, NAMES) == "no stickers on Signs, confirm"
    assert subject(spec, {}) == "confirm"
    assert subject(IndexDataset("dat_9", "sae_9"), NAMES) == ""


def test_every_kind_of_job_is_told():
    told = {type(spec) for spec in SAID} | {ValidateCorrection}
    assert told == set(get_args(JobSpec))
