"""interact_corrections through a worker: the matrix from the same per-image answers that validations give."""

import dataclasses
import io

import numpy as np
import pyarrow.parquet
import pytest
from tests.worker.lab import ATTACK

from fulcrum.domain.corrections import together
from fulcrum.domain.edits import Scale, SetTo
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import InteractCorrections, VersionOf
from fulcrum.domain.records import CorrectionRecord, CorrectionVersion


@pytest.fixture
def three(lab):
    """The lab with corrections of one latent each; the last two edit the same one, each in its own way."""
    first, second = lab.content.latents
    contents = [
        dataclasses.replace(lab.content, edits=(edit,))
        for edit in (Scale(first, -60.0), Scale(second, 20.0), SetTo(second, 30.0))
    ]
    ids = []
    with lab.workshop.store.write() as tx:
        for content in contents:
            record = CorrectionRecord(
                new_id("cor"),
                lab.workshop.project.id,
                new_id("c"),
                lab.workshop.user.id,
                now(),
                sae_id=lab.sae.id,
            )
            version = CorrectionVersion(record.id, 1, content.sha256, content, lab.workshop.user.id, now())
            tx.corrections.add(record, version)
            ids.append(record.id)
    return lab, ids, contents


def ask(lab, ids, **changes):
    values = {"split": "select", **changes}
    return InteractCorrections(tuple(VersionOf(i, 1) for i in ids), lab.dataset.id, **values)


def table_of(lab, correction_id, number=1):
    """The judged images of a validation of this version on select."""
    spec = dataclasses.replace(
        lab.ask(split="select", where=(), n_controls=0), correction_id=correction_id, number=number
    )
    evaluation = lab.evaluation(lab.run(spec))
    content = lab.workshop.artifacts.read_bytes(evaluation.parquet_sha256)
    table = pyarrow.parquet.read_table(io.BytesIO(content)).to_pandas()
    return table[table["evaluated"]]


def test_the_matrix_is_that_of_the_tables_of_three_validations(three):
    lab, ids, contents = three
    job = lab.run(ask(lab, ids[:2]))
    assert job.state == "succeeded", job.error
    both = together(*contents[:2])
    with lab.workshop.store.write() as tx:
        tx.corrections.add_version(
            ids[0], None, CorrectionVersion(ids[0], 2, both.sha256, both, lab.workshop.user.id, now())
        )
    tables = [table_of(lab, ids[0]), table_of(lab, ids[1]), table_of(lab, ids[0], 2)]
    right = tables[0]["base_prediction"] == tables[0]["label"]
    nfr = [(right & (t["corrected_prediction"] != t["label"])).mean() for t in tables]
    net = [(t["corrected_prediction"] == t["label"]).mean() - right.mean() for t in tables]
    (row,) = job.result["interactions"]
    assert (row["first"], row["second"]) == (f"{ids[0]}@1", f"{ids[1]}@1")
    assert (row["nfr_first"], row["nfr_second"], row["nfr_both"]) == tuple(map(pytest.approx, nfr))
    assert row["interaction"] == pytest.approx(nfr[2] - nfr[0] - nfr[1])
    assert row["net_interaction"] == pytest.approx(net[2] - net[0] - net[1])
    assert row["n"] == job.result["n"] == len(right)
    assert [a["net"] for a in (*job.result["corrections"], *job.result["together"])] == list(
        map(pytest.approx, net)
    )
    assert nfr[2] > nfr[0] + nfr[1]  # they break together what neither breaks alone


def test_what_a_validation_knows_is_not_computed_again(three):
    lab, ids, _ = three
    table_of(lab, ids[0])
    job = lab.run(ask(lab, ids[:2]))
    assert job.n_shards == 3
    assert job.n_shards_reused == 1
    before = lab.n_forwards()
    again = lab.run(ask(lab, ids[:2], where=ATTACK), user=lab.workshop.new_user("Bob"))
    assert (again.n_shards_reused, lab.n_forwards()) == (3, before)
    assert again.result["n"] < job.result["n"]


def test_a_pair_that_is_no_correction_is_left_out_with_the_reason(three):
    lab, ids, contents = three
    job = lab.run(ask(lab, ids))
    assert len(job.result["interactions"]) == 2
    (refused,) = job.result["refused"]
    assert (refused["first"], refused["second"]) == (f"{ids[1]}@1", f"{ids[2]}@1")
    assert str(contents[1].latents[0]) in refused["reason"]
    nothing = lab.run(ask(lab, ids[1:]))
    assert nothing.state == "failed"
    assert nothing.error.startswith("INVALID_EDIT")


def test_on_select_each_correction_and_each_pair_is_a_look_and_confirm_stays_sealed(three):
    lab, ids, contents = three
    assert lab.run(ask(lab, ids[:2], split="discover")).state == "succeeded"
    with lab.workshop.store.read() as tx:
        assert tx.looks.at(lab.workshop.project.id, lab.data.digest) == ()
    lab.run(ask(lab, ids[:2]))
    with lab.workshop.store.read() as tx:
        looks = tx.looks.at(lab.workshop.project.id, lab.data.digest)
    expected = {contents[0].sha256, contents[1].sha256, together(*contents[:2]).sha256}
    assert {k.correction_sha256 for k in looks} == expected
    sealed = lab.run(ask(lab, ids[:2], split="confirm"))
    assert sealed.state == "failed"
    assert "confirm is looked at once" in sealed.error


def test_one_correction_has_nothing_to_interact_with(three):
    lab, ids, _ = three
    job = lab.run(ask(lab, [ids[0], ids[0]]))
    assert job.state == "failed"
    assert job.error.startswith("INVALID_REQUEST")


def test_images_on_which_a_correction_was_found_and_their_twins_are_left_out(three):
    lab, ids, contents = three
    full = lab.run(ask(lab, ids[:2]))
    first = int(np.flatnonzero(lab.data.splits == "select")[0])
    twins = int((lab.data.pair_ids == lab.data.pair_ids[first]).sum())
    origin = dataclasses.replace(contents[0].origin, image_sha256=(lab.data.bytes_sha256[first],))
    found = dataclasses.replace(contents[0], edits=(*contents[0].edits,), origin=origin, task=None)
    with lab.workshop.store.write() as tx:
        tx.corrections.add_version(
            ids[0], None, CorrectionVersion(ids[0], 2, found.sha256, found, lab.workshop.user.id, now())
        )
    spec = dataclasses.replace(
        ask(lab, ids[:2], task=lab.content.task), corrections=(VersionOf(ids[0], 2), VersionOf(ids[1], 1))
    )
    job = lab.run(spec)
    assert job.result["n"] == full.result["n"] - twins
