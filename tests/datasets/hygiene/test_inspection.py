"""The import report on data sets with planted faults."""

import numpy as np
import pytest
from PIL import Image

from fulcrum.datasets.formats import load_dataset
from fulcrum.datasets.hygiene import Limits, assign_splits, find_leakage, inspect_dataset
from fulcrum.domain.errors import InvalidSettings

from ..images import encoded, picture, put_picture


@pytest.fixture
def planted(tmp_path):
    """discover and confirm with one copy of each kind across them, and pictures that have no copy."""
    rows = ["id,source,label,split,pair_id"]

    def put(name, content, split, pair=""):
        (tmp_path / name).write_bytes(content)
        rows.append(f"{name},{name},thing,{split},{pair}")

    original = picture(0, size=(90, 70))
    put("original.png", encoded(original), "discover")
    put("same_bytes.png", encoded(original), "confirm")
    put("other_file.png", encoded(picture(1)), "discover")
    put("same_pixels.png", encoded(picture(1), compress_level=1), "confirm")
    put("near.png", encoded(picture(2, size=(90, 70))), "discover")
    put("near.jpg", encoded(picture(2, size=(90, 70)), "JPEG", quality=80), "confirm")
    put("clean.png", encoded(picture(3)), "discover", "twin")
    put("attack.png", encoded(picture(4)), "confirm", "twin")
    put("inside_a.png", encoded(picture(5)), "confirm")
    put("inside_b.png", encoded(picture(5)), "confirm")
    put("alone.png", encoded(picture(6)), "confirm")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    return load_dataset(tmp_path)


def test_planted_duplicates_across_splits_are_reported_by_their_strongest_link(planted):
    report = inspect_dataset(planted, n_threads=1)
    leaks = {leak.kind: leak.ids for leak in report.leakage(planted).leaks}
    assert leaks == {
        "bytes": {"confirm": ("same_bytes.png",), "discover": ("original.png",)},
        "pixels": {"confirm": ("same_pixels.png",), "discover": ("other_file.png",)},
        "near": {"confirm": ("near.jpg",), "discover": ("near.png",)},
        "pair": {"confirm": ("attack.png",), "discover": ("clean.png",)},
    }
    assert report.leakage(planted).n_images == {"confirm": 4, "discover": 4}
    assert not report.leakage(planted).clean


def test_duplicates_inside_a_split_are_listed_and_do_not_leak(planted):
    report = inspect_dataset(planted, n_threads=1)
    found = [{planted.samples[n].id for n in cluster} for cluster in report.duplicates]
    assert {"inside_a.png", "inside_b.png"} in found
    assert len(found) == 4
    leaking = {i for leak in report.leakage(planted).leaks for ids in leak.ids.values() for i in ids}
    assert not leaking & {"inside_a.png", "inside_b.png", "alone.png"}


def test_embeddings_find_what_the_hash_does_not(planted):
    embeddings = np.eye(len(planted))
    embeddings[planted.number("alone.png")] = embeddings[planted.number("clean.png")]
    report = inspect_dataset(planted, embeddings=embeddings, n_threads=1)
    by_kind = {}
    for leak in report.leakage(planted).leaks:
        by_kind.setdefault(leak.kind, []).append(leak)
    (leak,) = by_kind.pop("embedding")
    assert leak.ids == {"confirm": ("alone.png",), "discover": ("clean.png",)}
    assert leak.link is not None
    assert (set(leak.link[:2]), leak.link[2]) == ({"clean.png", "alone.png"}, 1.0)
    alone, clean = planted.number("alone.png"), planted.number("clean.png")
    assert report.links == ((min(alone, clean), max(alone, clean), 1.0),)
    assert report.hash_clusters[alone] != report.hash_clusters[clean]
    # The others are what they are without embeddings.
    before = {leak.kind: leak.ids for leak in inspect_dataset(planted, n_threads=1).leakage(planted).leaks}
    assert {kind: [leak.ids for leak in some] for kind, some in by_kind.items()} == {
        kind: [ids] for kind, ids in before.items()
    }
    assert all(leak.link is None for some in by_kind.values() for leak in some)
    with pytest.raises(InvalidSettings, match=r"\(11, d\)"):
        inspect_dataset(planted, embeddings=embeddings[:4])


def test_a_chain_over_hash_and_embedding_names_the_two_that_are_closest_across_splits(planted):
    embeddings = np.eye(len(planted))
    # near.png (discover) and near.jpg (confirm) are one by hash; alone.png (confirm) is one with near.png by embedding.
    embeddings[planted.number("alone.png")] = 0.97 * embeddings[planted.number("near.png")]
    embeddings[planted.number("alone.png"), planted.number("other_file.png")] = np.sqrt(1 - 0.97**2)
    report = inspect_dataset(planted, embeddings=embeddings, n_threads=1)
    (leak,) = [leak for leak in report.leakage(planted).leaks if leak.kind == "embedding"]
    assert leak.ids == {"confirm": ("alone.png", "near.jpg"), "discover": ("near.png",)}
    assert leak.link is not None
    assert (set(leak.link[:2]), round(leak.link[2], 6)) == ({"alone.png", "near.png"}, 0.97)


def test_an_image_without_an_embedding_is_compared_by_hash_alone(planted):
    embeddings = np.ones((len(planted), 3))
    for name in ("near.png", "near.jpg", "alone.png"):
        embeddings[planted.number(name)] = 0
    report = inspect_dataset(planted, embeddings=embeddings, n_threads=1)
    clusters = {s.id: c for s, c in zip(planted.samples, report.clusters.tolist(), strict=True)}
    assert clusters["near.png"] == clusters["near.jpg"]
    assert len({clusters[n] for n in ("near.png", "alone.png", "clean.png")}) == 3
    assert len(set(clusters.values())) == 3


def test_unreadable_images_are_listed_and_do_not_stop_the_import(tmp_path):
    put_picture(tmp_path / "fine.png", 0)
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes(encoded(picture(1), "JPEG")[:-200])
    (tmp_path / "heavy.png").write_bytes(encoded(picture(2)) + b"\0" * 20_000)
    put_picture(tmp_path / "wide.png", 3, size=(300, 200))
    dataset = load_dataset(tmp_path)
    report = inspect_dataset(dataset, limits=Limits(max_bytes=19_000, max_pixels=50_000), n_threads=1)
    problems = {p.id: p.reason for p in report.problems}
    assert problems == {
        "cut.jpg": "UNREADABLE_IMAGE",
        "empty.jpg": "UNREADABLE_IMAGE",
        "text.png": "UNREADABLE_IMAGE",
        "heavy.png": "IMAGE_TOO_LARGE",
        "wide.png": "IMAGE_TOO_LARGE",
    }
    assert dataset.ids[report.readable].tolist() == ["fine.png"]
    assert report.duplicates == ()


def test_a_file_that_vanished_is_a_problem_of_the_report(tmp_path):
    put_picture(tmp_path / "a.png", 0)
    put_picture(tmp_path / "b.png", 1)
    dataset = load_dataset(tmp_path)
    (tmp_path / "a.png").unlink()
    assert [(p.id, p.reason) for p in inspect_dataset(dataset).problems] == [("a.png", "MISSING_FILES")]


def test_columns_describe_the_images_whatever_the_number_of_threads(tmp_path):
    for seed in range(9):
        put_picture(tmp_path / f"{seed}.png", seed, size=(40 + seed, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(9, size=(60, 30))).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(picture(10)).convert("L").save(tmp_path / "grey.png")
    dataset = load_dataset(tmp_path)
    calls = []
    one = inspect_dataset(dataset, n_threads=1, progress=lambda done, total: calls.append((done, total)))
    many = inspect_dataset(dataset, n_threads=4)
    assert one.pixels_sha256 == many.pixels_sha256
    assert one.bytes_sha256 == dataset.bytes_sha256
    np.testing.assert_array_equal(one.phashes, many.phashes)
    assert one.widths[3] == 43
    assert one.heights[dataset.number("turned.jpg")] == 60
    assert (one.n_rotated, one.n_converted) == (1, 1)
    assert calls[-1] == (11, 11)


def test_images_without_split_take_no_part_in_the_leakage_report(tmp_path):
    for name in ("a.png", "b.png"):
        put_picture(tmp_path / name, 0)
    dataset = load_dataset(tmp_path)
    report = inspect_dataset(dataset, n_threads=1)
    assert len(report.duplicates) == 1
    assert report.leakage(dataset).clean
    assert report.leakage(dataset).n_images == {}


FRACTIONS = {"discover": 0.5, "select": 0.25, "confirm": 0.25}


@pytest.fixture
def unsplit(tmp_path):
    """40 pairs in 4 classes; every tenth pair has a picture that is a copy of another pair's."""
    rows = ["id,source,label,pair_id"]
    for pair in range(40):
        for twin in "ab":
            seed = 2 * pair + (twin == "b")
            put_picture(tmp_path / f"{pair}{twin}.png", 0 if (twin == "a" and pair % 10 == 0) else seed + 1)
            rows.append(f"{pair}{twin},{pair}{twin}.png,class{pair % 4},p{pair}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    return load_dataset(tmp_path)


def test_new_splits_leak_nothing_and_meet_their_shares_in_every_class(unsplit):
    report = inspect_dataset(unsplit, n_threads=1)
    assert len(report.duplicates) == 1
    assert len(report.duplicates[0]) == 4
    split = assign_splits(unsplit, FRACTIONS, seed=3, clusters=report.clusters)
    assert find_leakage(split, report.clusters).clean
    assert report.leakage(split).clean
    some = np.array([0, 5, 9])
    assert report.leakage(split.subset(some), some).clean
    with pytest.raises(InvalidSettings, match="80 images was looked at, not of 3"):
        report.leakage(split.subset(some))
    for label in unsplit.class_names:
        for name, share in FRACTIONS.items():
            n = int(((split.labels == label) & (split.splits == name)).sum())
            assert abs(n - 20 * share) <= 4, (label, name, n)


def test_new_splits_depend_on_the_seed_alone(unsplit):
    first = assign_splits(unsplit, FRACTIONS, seed=3)
    again = assign_splits(first, dict(reversed(FRACTIONS.items())), seed=3)
    other = assign_splits(unsplit, FRACTIONS, seed=4)
    assert first.splits.tolist() == again.splits.tolist() != other.splits.tolist()
    assert first.ids.tolist() == unsplit.ids.tolist()


def test_one_image_in_each_class_is_still_dealt_out_by_the_shares(tmp_path):
    for seed in range(40):
        put_picture(tmp_path / f"class{seed}" / "x.png", seed)
    split = assign_splits(load_dataset(tmp_path), FRACTIONS)
    assert [int((split.splits == n).sum()) for n in FRACTIONS] == [20, 10, 10]


@pytest.mark.parametrize("fractions", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": float("nan"), "b": 1.0}])
def test_fractions_that_are_no_shares_are_refused(unsplit, fractions):
    with pytest.raises(InvalidSettings, match="fractions"):
        assign_splits(unsplit, fractions, clusters=np.arange(80))


def test_unknown_groups_and_foreign_clusters_are_refused(unsplit):
    with pytest.raises(InvalidSettings, match="stratify"):
        assign_splits(unsplit, FRACTIONS, clusters=np.arange(80), stratify_by=["frame"])
    with pytest.raises(InvalidSettings, match=r"\(80,\)"):
        assign_splits(unsplit, FRACTIONS, clusters=np.arange(79))
