"""Near-duplicates by embedding in `import_dataset`: mirrored copies, which no hash finds, with the demo CLIP."""

import io
import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from tests.datasets.images import encoded
from tests.datasets.test_archives import tarred, zipped
from tests.worker.test_importing import as_it_is, new_dataset
from tests.worker.test_importing_archives import report_of, stored_of, try_again_at_once

from fulcrum.datasets.clusters import clusters_of
from fulcrum.datasets.hygiene import facts, hamming, phash
from fulcrum.datasets.import_parts import open_part
from fulcrum.demo.shipped import demo_model, served_model
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import ImportDataset, content_key
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import ModelRecord, Project
from fulcrum.engine.image_embedding import ImageEmbedder
from fulcrum.worker.handlers import import_dataset as handler_module
from fulcrum.worker.handlers.import_dataset import ImportDatasetHandler


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@dataclass
class Planted:
    files: dict[str, bytes]
    archive: bytes
    pairs: dict[tuple[str, str], float]


@pytest.fixture(scope="module")
def planted(small_world, local_engine):
    """40 images in discover, and in confirm ten mirrored copies that the demo CLIP takes for the same and whose hashes
    are far apart; `pairs` are the (original, copy) ids with their cosines, computed one by one.
    """
    contents = [small_world.read_bytes(s) for s in small_world.samples]
    mirrored = [encoded(opened(c)[:, ::-1]) for c in contents]
    before = np.concatenate([local_engine.encode_images(demo_model(), [c]) for c in contents])
    after = np.concatenate([local_engine.encode_images(demo_model(), [c]) for c in mirrored])
    alike = before.astype(np.float64) @ after.T.astype(np.float64)
    apart = before @ before.T
    np.fill_diagonal(apart, 0)
    # Those of which nothing else is a near-duplicate, so that each copy has one original.
    lonely = np.flatnonzero(apart.max(axis=1) < 0.93)
    others = np.where(np.eye(len(alike), dtype=bool), 0, alike)
    chosen = [i for i in lonely if alike[i, i] >= 0.96 and max(others[i].max(), others[:, i].max()) < 0.93][
        :10
    ]
    assert len(chosen) == 10
    rest = [i for i in lonely if i not in chosen][:30]
    files, rows, pairs = {}, ["id,source,label,split"], {}
    for i in sorted([*chosen, *rest]):
        files[f"{i}.png"] = contents[i]
        rows.append(f"n{i:03d},{i}.png,{small_world.samples[i].label},discover")
    for i in chosen:
        one, other = (phash(opened(c)) for c in (contents[i], mirrored[i]))
        assert hamming(np.array([one], np.uint64), np.array([other], np.uint64))[0] > 6
        files[f"m{i}.png"] = mirrored[i]
        rows.append(f"m{i:03d},m{i}.png,{small_world.samples[i].label},confirm")
        pairs[f"n{i:03d}", f"m{i:03d}"] = float(alike[i, i])
    files["manifest.csv"] = "\n".join(rows).encode()
    return Planted(files, zipped(files), pairs)


@pytest.fixture
def importing(workshop):
    """`importing(archive, **spec)`: the record before, and the job at its end."""

    def run(archive, handlers=None, **fields):
        record = new_dataset(workshop)
        sha256 = workshop.artifacts.put_bytes(archive)
        job = workshop.submit(ImportDataset(record.id, f"artifact:{sha256}", **fields))
        return record, workshop.run(job, handlers)

    return run


def shards_of(workshop, job):
    with workshop.store.read() as tx:
        return tx.job_tasks.results(job.id)


def test_copies_that_no_hash_finds_are_one_image_for_the_model_and_the_report_says_how(
    workshop, importing, planted
):
    pairs = planted.pairs
    model = workshop.add_demo_model()
    without, _ = importing(planted.archive)
    assert (report_of(workshop, without).n_leaks, report_of(workshop, without).embeddings) == (0, None)
    record, job = importing(planted.archive, model_id=model.id)
    assert job.state == "succeeded", job.error
    assert (job.result["n_leaks"], job.result["n_links"]) == (10, 10)
    report = report_of(workshop, record)
    compared = report.embeddings
    assert (compared.model_id, compared.model_name) == (model.id, model.name)
    assert (compared.min_cosine, compared.n_links) == (0.95, 10)
    assert {frozenset(link.ids): link.cosine for link in compared.links} == {
        frozenset(ids): pytest.approx(cosine, abs=1e-5) for ids, cosine in pairs.items()
    }
    cosines = [link.cosine for link in compared.links]
    assert cosines == sorted(cosines, reverse=True)
    assert {k.kind for k in report.leaks} == {"embedding"}
    assert {(*k.ids["discover"], *k.ids["confirm"]): k.link.cosine for k in report.leaks} == {
        ids: pytest.approx(cosine, abs=1e-5) for ids, cosine in pairs.items()
    }
    assert report.n_leaking == {"confirm": 10, "discover": 10}
    # The same content, in which a copy now counts as its original.
    assert as_it_is(workshop, record).digest == as_it_is(workshop, without).digest
    dataset = stored_of(workshop, record).dataset
    shared = clusters_of(dataset)
    assert all(shared[dataset.number(a)] == shared[dataset.number(b)] for a, b in pairs)
    assert len(set(shared.tolist())) == len(dataset) - 10


def test_new_splits_keep_an_image_and_what_the_model_takes_for_it_together(workshop, importing, planted):
    pairs = planted.pairs
    model = workshop.add_demo_model()
    apart = set()
    for model_id in (None, model.id):
        record, job = importing(planted.archive, new_splits=True, seed=1, model_id=model_id)
        assert job.state == "succeeded", job.error
        split = {s.id: s.split for s in stored_of(workshop, record).dataset.samples}
        apart.add((model_id, any(split[a] != split[b] for a, b in pairs)))
    assert apart == {(None, True), (model.id, False)}
    assert job.result["n_leaks"] == 0


def test_an_import_without_a_model_has_the_keys_and_the_parts_that_it_always_had(
    workshop, importing, planted
):
    _, job = importing(planted.archive)
    (result,) = shards_of(workshop, job)
    source = result.shard.content["source"]
    assert result.shard.content == {"source": source, "first": 0, "last": 50}
    assert result.shard.key == content_key(kind="import_part", version=1, source=source, first=0, last=50)
    part = open_part(workshop.artifacts.local_path(result.sha256))
    assert part.embeddings is None
    assert "embeddings" not in part.file.arrays
    assert job.queue == "cpu"
    _, job = importing(planted.archive, model_id=workshop.add_demo_model().id)
    (embedded,) = shards_of(workshop, job)
    assert embedded.shard.key != result.shard.key
    assert open_part(workshop.artifacts.local_path(embedded.sha256)).embeddings.shape[0] == 50
    assert job.queue == "gpu"  # it runs a model


def test_what_was_embedded_is_kept_under_the_weights_that_did_it(workshop, importing, planted):
    first, same = workshop.add_demo_model(), workshop.add_demo_model()
    assert importing(planted.archive, model_id=first.id)[1].n_shards_reused == 0
    record, job = importing(planted.archive, model_id=same.id)
    assert (job.n_shards, job.n_shards_reused) == (1, 1)
    assert report_of(workshop, record).embeddings.model_name == same.name
    assert importing(planted.archive)[1].n_shards_reused == 0


def test_an_image_is_decoded_once_and_an_interrupted_import_embeds_none_twice(
    workshop, importing, planted, monkeypatch
):
    monkeypatch.setattr(handler_module, "IMAGES_PER_PART", 8)
    pairs = planted.pairs
    model = workshop.add_demo_model()
    undisturbed, _ = importing(tarred(planted.files), model_id=model.id)
    decoded, embedded, died = [], [], []
    decode, embed = facts.decode_image, ImageEmbedder.embed

    def counting_decode(content, limits):
        decoded.append(len(content))
        return decode(content, limits)

    def counting_embed(self, prepared):
        embedded.append(len(prepared))
        return embed(self, prepared)

    monkeypatch.setattr(facts, "decode_image", counting_decode)
    monkeypatch.setattr("fulcrum.science.vision.images.decode_image", None)
    monkeypatch.setattr(ImageEmbedder, "embed", counting_embed)

    class Mortal(ImportDatasetHandler):
        def run_shard(self, work, shard):
            if len(embedded) == 3 and not died:
                died.append(shard.content["first"])
                raise OSError("the machine went away")
            return super().run_shard(work, shard)

        def reduce(self, work, results):
            made = super().reduce(work, results)
            if len(died) == 1:
                died.append("reduced")
                raise OSError("after all was written")
            return made

    record = new_dataset(workshop)
    sha256 = workshop.artifacts.put_bytes(planted.archive)
    job = workshop.submit(ImportDataset(record.id, f"artifact:{sha256}", model_id=model.id))
    for _ in range(3):
        workshop.runner({"import_dataset": Mortal()}, machine=workshop.new_machine()).run_until_idle()
        try_again_at_once(workshop)
    ended = workshop.job(job)
    assert ended.state == "succeeded", ended.error
    assert died == [24, "reduced"]
    assert (len(decoded), sum(embedded)) == (50, 50)
    assert ended.result["n_links"] == len(pairs)
    assert as_it_is(workshop, record).digest == as_it_is(workshop, undisturbed).digest


def test_a_model_that_is_not_there_or_of_another_project_is_named(workshop, importing, planted):
    _, job = importing(planted.archive, model_id="mdl_none")
    assert job.error.startswith("UNKNOWN_MODEL: no model with the id 'mdl_none'")
    project = Project(new_id("prj"), "Elsewhere", now())
    foreign = ModelRecord(new_id("mdl"), project.id, "m", served_model(), workshop.user.id, now(), "ready")
    with workshop.store.write() as tx:
        tx.projects.add(project)
        tx.models.add(foreign)
    record, job = importing(planted.archive, model_id=foreign.id)
    assert job.error.startswith("UNKNOWN_MODEL")
    assert as_it_is(workshop, record) == record


def test_a_model_that_cannot_tell_images_apart_is_warned_of(workshop, importing, planted):
    blind = ModelRecord(
        new_id("mdl"),
        workshop.project.id,
        "unborn",
        ModelRef("ViT-B-32", random_weights=True),
        workshop.user.id,
        now(),
        "ready",
    )
    with workshop.store.write() as tx:
        tx.models.add(blind)
    record, job = importing(planted.archive, model_id=blind.id)
    assert job.state == "succeeded", job.error
    (warning,) = job.result["warnings"]
    assert "near-duplicates of each other for unborn" in warning
    assert json.dumps(warning) in json.dumps(report_of(workshop, record).warnings)


def test_a_strip_that_the_model_cannot_take_is_imported_and_said(workshop, importing, planted):
    pairs = planted.pairs
    files = {n: c for n, c in planted.files.items() if n != "manifest.csv"} | {
        "strip.png": encoded(np.full((1, 40_000, 3), 9, np.uint8))
    }
    record, job = importing(zipped(files), model_id=workshop.add_demo_model().id)
    assert job.state == "succeeded", job.error
    assert as_it_is(workshop, record).n_images == 51
    assert any("1 images are too long strips for" in w for w in job.result["warnings"])
    assert job.result["n_links"] == len(pairs)
