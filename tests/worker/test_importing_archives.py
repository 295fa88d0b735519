"""Archives that were uploaded, as `import_dataset` reads them; interruptions, quotas, other imports, full disks."""

import dataclasses
import errno
import io
import json
import tarfile
from datetime import timedelta

import numpy as np
import pytest
from PIL import Image
from tests.datasets.hygiene.test_decoding import png_header
from tests.datasets.images import encoded, picture
from tests.datasets.test_archives import tarred, zipped
from tests.worker.test_importing import as_it_is, new_dataset

from fulcrum.datasets.clusters import clusters_of
from fulcrum.datasets.formats import load_dataset
from fulcrum.datasets.import_parts import open_part
from fulcrum.datasets.stored import read_stored
from fulcrum.domain.codec import from_json
from fulcrum.domain.datasets import ImportReport
from fulcrum.domain.jobs import ImportDataset, IndexDataset
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.job_tasks import TASKS
from fulcrum.worker.handlers import import_dataset as handler_module
from fulcrum.worker.handlers.import_dataset import ImportDatasetHandler
from fulcrum.worker.reconciler import Reconciler


def images(n, folder="{label}", first=0):
    return {
        f"{folder.format(label='ab'[i % 2])}/{i:03d}.png": encoded(picture(i))
        for i in range(first, first + n)
    }


@pytest.fixture
def importing(workshop):
    """`importing(record, archive, **spec)`: the job at its end."""

    def run(record, archive, handlers=None, **fields):
        sha256 = workshop.artifacts.put_bytes(archive)
        job = workshop.submit(ImportDataset(record.id, f"artifact:{sha256}", **fields))
        return workshop.run(job, handlers)

    return run


def try_again_at_once(workshop):
    """What failed for a while is due after some seconds: they are over."""
    with workshop.store.write() as tx:
        tx.job_tasks._write(TASKS.update().values(not_before=None))


def report_of(workshop, record):
    content = workshop.artifacts.read_bytes(as_it_is(workshop, record).report_sha256)
    return from_json(ImportReport, json.loads(content))


def stored_of(workshop, record):
    content = workshop.artifacts.read_bytes(as_it_is(workshop, record).manifest_sha256)
    return read_stored(content, record.name, workshop.artifacts.read_bytes)


@pytest.mark.parametrize(
    "make",
    [zipped, tarred, lambda f: tarred(f, "w:gz"), lambda f: zipped({f"shops/{n}": c for n, c in f.items()})],
)
def test_an_archive_becomes_the_data_set_that_its_folder_is(workshop, importing, tmp_path, make):
    files = images(12)
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    record = new_dataset(workshop)
    job = importing(record, make(files))
    assert job.state == "succeeded", job.error
    stored = stored_of(workshop, record)
    expected = load_dataset(tmp_path / "folder")
    assert [(s.id, s.label) for s in stored.dataset.samples] == [(s.id, s.label) for s in expected.samples]
    assert stored.dataset.bytes_sha256 == expected.bytes_sha256
    assert not (workshop.machine.jobs_folder / job.id).exists()


def test_what_is_known_about_each_image_is_kept_with_a_small_picture(workshop, importing):
    files = images(5) | {"a/large.png": encoded(picture(9, (700, 400)))}
    record = new_dataset(workshop)
    assert importing(record, zipped(files)).state == "succeeded"
    stored = stored_of(workshop, record)
    columns = stored.columns
    for i, sample in enumerate(stored.dataset.samples):
        content = files[sample.id]
        with Image.open(io.BytesIO(content)) as original:
            assert (columns.widths[i], columns.heights[i]) == original.size
        sha256, row = columns.picture_at(i)
        small = open_part(workshop.artifacts.local_path(sha256)).picture(row)
        with Image.open(io.BytesIO(small)) as thumbnail:
            assert thumbnail.format == "JPEG"
            assert max(thumbnail.size) == min(256, max(columns.widths[i], columns.heights[i]))
            with Image.open(io.BytesIO(content)) as original:
                near = np.asarray(original.resize(thumbnail.size), dtype=float) - np.asarray(
                    thumbnail, dtype=float
                )
            assert np.abs(near).mean() < 8
    assert len(set(columns.pixels_sha256)) == 6
    assert as_it_is(workshop, record).size_bytes == sum(len(c) for c in files.values())


def test_a_tar_that_is_a_webdataset_is_read_as_one(workshop, importing):
    files = {}
    for i in range(6):
        files |= {f"{i:03d}.png": encoded(picture(i)), f"{i:03d}.cls": b"ab"[i % 2 : i % 2 + 1]}
    record = new_dataset(workshop)
    job = importing(record, tarred(files))
    assert job.state == "succeeded", job.error
    assert report_of(workshop, record).format == "webdataset"
    assert stored_of(workshop, record).dataset.labels.tolist() == ["a", "b"] * 3


def test_masks_are_kept_and_one_that_cannot_be_read_is_named(workshop, importing):
    rows = ["id,source,label,mask_path"]
    files = {}
    for i in range(4):
        files |= {f"images/{i}.png": encoded(picture(i)), f"masks/{i}.png": encoded(picture(50 + i)[..., 0])}
        rows.append(f"n{i},images/{i}.png,a,masks/{i}.png")
    files["masks/3.png"] = b"no mask"
    files["manifest.csv"] = "\n".join(rows).encode()
    record = new_dataset(workshop)
    job = importing(record, zipped(files))
    assert job.state == "succeeded", job.error
    samples = stored_of(workshop, record).dataset.samples
    assert [workshop.artifacts.read_bytes(s.mask_path) for s in samples[:3]] == [
        files[f"masks/{i}.png"] for i in range(3)
    ]
    assert samples[3].mask_path is None
    report = report_of(workshop, record)
    assert report.n_masks == 3
    assert report.mask_problems[0].startswith("n3: the mask cannot be read")


def test_the_report_names_what_was_left_out_and_what_leaks(workshop, importing):
    rows = ["id,source,label,split"]
    files = {}
    for i in range(60):
        files[f"{i}.png"] = encoded(picture(i))
        rows.append(f"n{i:02d},{i}.png,{'ab'[i % 2]},{['discover', 'select', 'confirm'][i % 3]}")
    files["4.png"] = files["3.png"]  # n03 discover, n04 select: the same bytes
    files["8.png"] = encoded(picture(7), compress_level=0)  # n07 select, n08 confirm: the same pixels
    files["10.png"] = encoded(picture(9), "JPEG", quality=60)  # n09 discover, n10 select: look alike
    files["11.png"] = files["11.png"][:100]
    files["12.png"] = png_header(30_000, 30_000)
    files["manifest.csv"] = "\n".join(rows).encode()
    record = new_dataset(workshop)
    job = importing(record, zipped(files))
    assert job.state == "succeeded", job.error
    report = report_of(workshop, record)
    assert (report.n_found, report.n_images, report.n_left_out) == (60, 58, 2)
    assert [(p.id, p.reason) for p in report.left_out] == [
        ("n11", "UNREADABLE_IMAGE"),
        ("n12", "IMAGE_TOO_LARGE"),
    ]
    assert "more pixels than 50000000" in report.left_out[1].message
    assert {(k.kind, *sorted(i for some in k.ids.values() for i in some)) for k in report.leaks} == {
        ("bytes", "n03", "n04"),
        ("pixels", "n07", "n08"),
        ("near", "n09", "n10"),
    }
    assert report.n_leaking == {"confirm": 1, "discover": 2, "select": 3}
    assert job.result["n_leaks"] == 3
    # What validations count as one: a near-duplicate of an image that was looked at proves nothing.
    dataset = stored_of(workshop, record).dataset
    shared = clusters_of(dataset)
    for one, other in (("n03", "n04"), ("n07", "n08"), ("n09", "n10")):
        assert shared[dataset.number(one)] == shared[dataset.number(other)]
    assert len(set(shared.tolist())) == 58 - 3
    again = importing(new_dataset(workshop), zipped(files), new_splits=True)
    assert again.result["n_leaks"] == 0
    assert again.result["n_duplicate_clusters"] == 3


def test_an_image_of_one_pixel_is_imported_and_indexed_like_any_other(workshop, importing):
    record = new_dataset(workshop)
    files = images(6) | {
        "a/dot.png": encoded(np.full((1, 1, 3), 7, np.uint8)),
        "b/line.png": encoded(picture(1, (3000, 1))),
    }
    assert importing(record, zipped(files)).state == "succeeded"
    assert as_it_is(workshop, record).n_images == 8
    job = workshop.run(workshop.submit(IndexDataset(record.id, workshop.add_demo_sae().id)))
    assert job.state == "succeeded", job.error


@pytest.mark.parametrize(
    ("archive", "error"),
    [
        (b"hello", "INVALID_DATASET: the archive is damaged"),
        (zipped({"../1.png": b""}), "INVALID_DATASET: the archive: '../1.png' leaves"),
        (zipped({"a/readme.md": b"x"}), "INVALID_DATASET: the archive holds no file that we read"),
        (zipped({"a/1.png": b"no image", "a/2.png": b""}), "INVALID_DATASET: 2 of 2 images cannot be used"),
        (zipped({"data.csv": b"id,source\nx,1.png\n"}), "INVALID_DATASET"),
        (zipped({"manifest.csv": b"id,source\nx,1.png\n"}), "MISSING_FILES"),
        (
            zipped({"manifest.csv": b"id,source\nx,../1.png\n", "1.png": b""}),
            "INVALID_DATASET: manifest.csv line 2",
        ),
        (
            zipped({"manifest.csv": b"id,source\nx,1.png\nx,2.png\n", "1.png": b"", "2.png": b""}),
            "INVALID_DATASET: ids must differ",
        ),
        (zipped(images(4) | {"c.zip": b"PK"}), "INVALID_DATASET: the archive holds another one"),
        (tarred(images(4))[:3000], "INVALID_DATASET: the archive is"),
    ],
)
def test_what_cannot_be_imported_says_why_and_changes_nothing(workshop, importing, archive, error):
    record = new_dataset(workshop)
    job = importing(record, archive)
    assert job.state == "failed"
    assert job.error.startswith(error)
    assert str(workshop.folder) not in job.error
    assert as_it_is(workshop, record) == record
    with workshop.store.read() as tx:
        assert tx.dataset_versions.list(workshop.project.id).items == ()
    assert not (workshop.machine.jobs_folder / job.id).exists()


def test_labels_outside_the_class_set_and_empty_splits_are_refused(workshop, importing):
    strict = new_dataset(workshop, class_names=("a", "c"))
    assert "labels ['b'] are not among the class names" in importing(strict, zipped(images(4))).error
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in images(4, "discover/{label}").items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        empty = tarfile.TarInfo("confirm")
        empty.type = tarfile.DIRTYPE
        archive.addfile(empty)
    assert "the split 'confirm' of" in importing(new_dataset(workshop), out.getvalue()).error
    files = images(40, "discover/{label}") | {"confirm/a/x.png": b"no image"}
    assert "the split 'confirm' is empty" in importing(new_dataset(workshop), zipped(files)).error


def test_what_gets_no_image_when_a_few_are_divided_is_said(workshop, importing):
    job = importing(new_dataset(workshop), zipped(images(1)))
    assert job.state == "succeeded"
    (warning,) = job.result["warnings"]
    assert warning.startswith("1 images are too few to divide")


def test_an_import_that_was_interrupted_goes_on_where_it_was_and_ends_the_same(
    workshop, importing, monkeypatch
):
    monkeypatch.setattr(handler_module, "IMAGES_PER_PART", 8)
    archive = zipped(images(40))
    undisturbed = new_dataset(workshop)
    assert importing(undisturbed, archive, seed=3).state == "succeeded"
    # Other bytes in the container, the same images in it: nothing can come from the first one.
    other = tarred(images(40))
    looked_at = []

    class Mortal(ImportDatasetHandler):
        dies_at = 3

        def run_shard(self, work, shard):
            if len(looked_at) == self.dies_at:
                Mortal.dies_at = -1
                raise OSError("the machine went away")
            looked_at.append(shard.content["first"])
            return super().run_shard(work, shard)

        def reduce(self, work, results):
            made = super().reduce(work, results)
            if len(looked_at) == 5:
                looked_at.append("reduced")
                raise OSError("after all was written")
            return made

    record = new_dataset(workshop)
    sha256 = workshop.artifacts.put_bytes(other)
    job = workshop.submit(ImportDataset(record.id, f"artifact:{sha256}", seed=3))
    for _ in range(3):
        # A new process each time.
        workshop.runner({"import_dataset": Mortal()}, machine=workshop.new_machine()).run_until_idle()
        try_again_at_once(workshop)
    ended = workshop.job(job)
    assert ended.state == "succeeded", ended.error
    assert looked_at == [0, 8, 16, 32, 24, "reduced"]
    first, second = as_it_is(workshop, undisturbed), as_it_is(workshop, record)
    assert (second.digest, second.n_by_split) == (first.digest, first.n_by_split)
    with workshop.store.read() as tx:
        assert len(tx.dataset_versions.list(workshop.project.id, dataset_id=record.id).items) == 1


def test_the_same_archive_again_looks_at_no_image(workshop, importing):
    archive = zipped(images(10))
    first, second = new_dataset(workshop), new_dataset(workshop)
    assert importing(first, archive).n_shards_reused == 0
    again = importing(second, archive)
    assert (again.n_shards, again.n_shards_reused) == (1, 1)
    assert as_it_is(workshop, second).digest == as_it_is(workshop, first).digest


def test_of_two_imports_at_once_the_slower_one_fails_and_says_so(workshop, importing):
    record = new_dataset(workshop)
    assert importing(record, zipped(images(6)), replaces="").state == "succeeded"
    kept = as_it_is(workshop, record)
    slower = importing(record, zipped(images(6, first=10)), replaces="")
    assert slower.state == "failed"
    assert slower.error.startswith("STALE_VERSION")
    assert as_it_is(workshop, record) == kept
    # The same content is no conflict, and who saw the new content may replace it.
    assert importing(record, tarred(images(6)), replaces="").state == "succeeded"
    assert importing(record, zipped(images(6, first=10)), replaces=kept.digest).state == "succeeded"
    with workshop.store.read() as tx:
        versions = tx.dataset_versions.list(workshop.project.id, dataset_id=record.id).items
    assert [v.digest for v in versions][-1] == kept.digest
    assert len({v.digest for v in versions}) == 2


def test_a_quota_counts_the_other_data_sets_of_the_project(workshop, importing):
    archive = zipped(images(6))
    one, other = new_dataset(workshop), new_dataset(workshop)
    assert importing(one, archive, quota_bytes=10**6).state == "succeeded"
    size = as_it_is(workshop, one).size_bytes
    refused = importing(other, archive, quota_bytes=2 * size - 1)
    assert refused.error.startswith("QUOTA_EXCEEDED")
    assert str(2 * size - 1) in refused.error
    assert as_it_is(workshop, other) == other
    assert importing(other, archive, quota_bytes=2 * size).state == "succeeded"
    # Importing anew counts what it replaces as free.
    assert importing(other, zipped(images(6)), quota_bytes=2 * size).state == "succeeded"


def test_a_data_set_that_is_deleted_while_it_is_filled_ends_the_job(workshop, importing, monkeypatch):
    monkeypatch.setattr(handler_module, "IMAGES_PER_PART", 8)
    looked_at = []

    class Deleting(ImportDatasetHandler):
        def run_shard(self, work, shard):
            found = super().run_shard(work, shard)
            looked_at.append(shard.content["first"])
            with work.store.write() as tx:
                tx.datasets.delete(record.id)
            return found

    record = new_dataset(workshop)
    job = importing(record, zipped(images(40)), handlers={"import_dataset": Deleting()})
    assert job.state == "failed"
    assert job.error.startswith("UNKNOWN_DATASET")
    assert looked_at == [0]


def test_a_full_disk_is_said_to_be_one_and_leaves_nothing_visible(workshop, monkeypatch):
    class Full(Artifacts):
        def put_bytes(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    archive = workshop.artifacts.put_bytes(zipped(images(6)))
    record = new_dataset(workshop)
    job = workshop.submit(ImportDataset(record.id, f"artifact:{archive}"))
    machine = workshop.new_machine()
    full = Full.__new__(Full)
    full.__dict__ = workshop.artifacts.__dict__
    machine.artifacts = full
    workshop.runner(machine=machine).run_until_idle()
    assert as_it_is(workshop, record) == record
    assert any("No space left on device" in line for line in workshop.log(job))
    # Room again: the job goes on by itself.
    try_again_at_once(workshop)
    assert workshop.run(job).state == "succeeded"


def test_a_folder_that_changes_while_it_is_imported_is_not_mixed(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr(handler_module, "IMAGES_PER_PART", 8)
    lab = tmp_path / "lab"
    for name, content in images(16).items():
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        (lab / name).write_bytes(content)

    class Forgetful(ImportDatasetHandler):
        """As in another process: nothing is held between two parts."""

        def run_shard(self, work, shard):
            found = ImportDatasetHandler().run_shard(work, shard)
            (lab / "a" / "000.png").write_bytes(encoded(picture(99)) + b"x")
            return found

    record = new_dataset(workshop)
    machine = workshop.new_machine()
    machine._folders = {**machine._folders, "lab": lab}
    job = workshop.submit(ImportDataset(record.id, "folder:lab"))
    workshop.runner({"import_dataset": Forgetful()}, machine=machine).run_until_idle()
    ended = workshop.job(job)
    assert ended.error.startswith("INVALID_DATASET: folder:lab changed while it was imported")
    assert as_it_is(workshop, record) == record


class Silent:
    """A queue that wakes nobody."""

    def wake(self, queue, n=1):
        pass

    def n_waiting(self, queue):
        return 0


def test_an_archive_is_removed_when_all_its_imports_are_long_over_and_the_images_stay(workshop, importing):
    archive, other = zipped(images(6)), zipped(images(4))
    sha256, sha256_of_other = (workshop.artifacts.put_bytes(a) for a in (archive, other))
    record = new_dataset(workshop)
    assert importing(record, archive).state == "succeeded"
    assert importing(new_dataset(workshop), other).state == "succeeded"
    waiting = workshop.submit(ImportDataset(record.id, f"artifact:{sha256_of_other}"))

    def look(days):
        Reconciler(workshop.machine, Silent(), ["cpu"], timedelta(days=30), timedelta(days=days)).look()
        return workshop.artifacts.exists(sha256), workshop.artifacts.exists(sha256_of_other)

    assert look(days=1) == (True, True)
    assert look(days=0) == (False, True)  # the other one is needed by a job that waits
    assert look(days=0) == (False, True)
    dataset = stored_of(workshop, record).dataset
    assert dataset.read_bytes(dataset.samples[0]) == images(6)[dataset.samples[0].id]
    assert workshop.run(waiting).state == "succeeded"
    again = workshop.submit(ImportDataset(record.id, f"artifact:{sha256}"))
    assert workshop.run(again).error.startswith("UNKNOWN_ARTIFACT")


def test_every_job_spec_that_is_kept_can_be_read_again(workshop):
    spec = ImportDataset("dat_1", "folder:lab", replaces="", quota_bytes=5)
    assert from_json(ImportDataset, dataclasses.asdict(spec)) == spec
