"""The commands as a person types them: in this process, on real files, with the shipped demo model."""

import io
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fulcrum.cli.main import run
from fulcrum.demo.world_dataset import write_demo_dataset


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    counts = {"discover": 24, "select": 12, "confirm": 24}
    write_demo_dataset(folder, n_pairs=counts, n_right=4, n_neutral=4, n_cues=4, seed=11)
    return folder


@pytest.fixture
def photo(tmp_path):
    """An everyday file: not square, no object of the demo world."""
    rng = np.random.default_rng(0)
    path = tmp_path / "photo.jpg"
    Image.fromarray(rng.integers(0, 255, (120, 200, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def fulcrum(capsys):
    """Runs a command; returns (exit status, stdout, stderr)."""

    def call(*arguments):
        try:
            run([str(a) for a in arguments])
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def succeed(result):
    status, output, err = result
    assert status == 0, err + output
    return json.loads(output)


def fail(result, reason):
    status, output, err = result
    assert status == 2
    assert "Traceback" not in err + output
    assert json.loads(output)["error"]["reason"] == reason
    return json.loads(output)["error"]["message"]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_explain_and_steer_read_every_kind_of_image_file(fulcrum, tmp_path, photo, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.open(photo).save(path)
    found = succeed(fulcrum("explain", path, "--prompts", "boat, key, clock", "--json"))
    assert found["prediction"]["top"] in ("boat", "key", "clock")
    assert found["target"]["kind"] == "margin"
    latent = found["latents"][0]["latent"]
    saved = tmp_path / "c.json"
    steered = succeed(
        fulcrum(
            "steer",
            path,
            "--suppress",
            latent,
            "-p",
            "boat,key,clock",
            "--save",
            saved,
            "--json",
            "--n-controls",
            8,
        )
    )
    assert steered["effect"]["diagnostics"]["changed"]
    target = found["latents"][0]["measured_effect"]
    assert steered["effect"]["target_before"] - steered["effect"]["target_after"] == pytest.approx(
        target, abs=1e-3
    )
    again = succeed(
        fulcrum("steer", path, "--correction", saved, "-p", "boat,key,clock", "--json", "--n-controls", 8)
    )
    assert again["correction_sha256"] == steered["correction_sha256"]
    assert again["effect"]["after"] == steered["effect"]["after"]


@pytest.mark.parametrize("model", ["ViT-B-32", "ViT-B-16-SigLIP"])
def test_explain_and_steer_work_for_models_of_openclip(fulcrum, photo, model):
    options = ("--model", model, "--random-weights", "--prompts", "dog,cat,tree", "--json")
    sae = ("--sae", "untrained:topk:512:8")
    found = succeed(fulcrum("explain", photo, *options, *sae, "--n-latents", 3))
    assert len(found["latents"]) == 3
    assert found["prediction"]["probs_kind"] == ("sigmoid" if "SigLIP" in model else "softmax")
    latent = found["latents"][0]["latent"]
    steered = succeed(fulcrum("steer", photo, "--scale", f"{latent}=3", *options, *sae, "--n-controls", 2))
    assert steered["effect"]["diagnostics"]["fired"] == [True]


def test_the_tables_for_people_print(fulcrum, photo):
    status, output, _ = fulcrum("explain", photo, "--prompts", "boat,key", "--method", "integrated_gradients")
    assert status == 0
    assert "measured effect" in output
    assert "Completeness residual" in output
    status, output, _ = fulcrum(
        "steer", photo, "--suppress", "1,2", "--prompts", "boat,key", "--n-controls", 4
    )
    assert status == 0
    assert "latent 1" in output


def test_from_a_failure_group_to_a_verdict(fulcrum, world, tmp_path):
    indexed = succeed(fulcrum("index", "-d", world, "--json"))
    assert indexed["n_images"] == 24 * 4 + 12 * 2 + 3 * 12
    saved = tmp_path / "correction.json"
    found = succeed(
        fulcrum("suggest", "-d", world, "-w", "sticker_kind=attack", "--clean", "sticker_kind=none", "--max-edits", 16,
                "--save", saved, "--json")
    )  # fmt: skip
    assert found["group_accuracy_after"] > found["group_accuracy_before"]
    assert found["correction"] == json.loads(saved.read_text())
    table = tmp_path / "rows.csv"
    report = succeed(
        fulcrum("validate", "-c", saved, "-d", world, "-w", "sticker_kind=attack", "--protect", "sticker_kind=none",
                "--legitimate", "sticker_kind=right", "--table", table, "--json")
    )  # fmt: skip
    assert report["verdict"]["name"] in (
        "generalises", "generalises with harm", "harmful", "inconclusive", "instance-only",
    )  # fmt: skip
    assert report["target"]["n"] == 24
    header, *rows = table.read_text().splitlines()
    assert "outcome" in header
    evaluated = header.replace('"', "").split(",").index("evaluated")
    assert sum(row.split(",")[evaluated] == "true" for row in rows) == report["counted"]["evaluated"]
    status, output, _ = fulcrum(
        "validate", "-c", saved, "-d", world, "-w", "sticker_kind=attack", "--n-controls", 0
    )
    assert status == 0
    assert "look 2 at confirm" in output


def test_a_data_set_without_splits_is_divided_the_same_way_each_time(fulcrum, world, tmp_path, photo):
    folder = tmp_path / "photos"
    for line in (world / "manifest.csv").read_text().splitlines()[1:49]:
        _, source, label = line.split(",")[:3]
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / Path(source).name).write_bytes((world / source).read_bytes())
    first = next(folder.rglob("*.png"))
    (first.parent / "copy.png").write_bytes(first.read_bytes())
    status, output, err = fulcrum("index", "-d", folder, "--check", "--json")
    assert status == 0
    found = json.loads(output)
    assert "divided into" in err
    assert any("copy" in "".join(cluster) for cluster in found["hygiene"]["duplicates"])
    assert found["hygiene"]["n_leaks"] == 0  # duplicates stay together
    again = succeed(fulcrum("index", "-d", folder, "--json"))
    assert again["dataset_digest"] == found["dataset_digest"]
    saved = tmp_path / "c.json"
    succeed(fulcrum("steer", first, "--suppress", "1", "--save", saved, "--json", "--n-controls", 0))
    report = succeed(fulcrum("validate", "-c", saved, "-d", folder, "--n-controls", 0, "--json"))
    assert report["overall"]["n"] == report["counted"]["evaluated"] > 10
    assert report["verdict"]["name"] != "generalises"
    own = succeed(fulcrum("index", "-d", world, "--json"))
    divided = succeed(fulcrum("index", "-d", world, "--new-splits", "--index-dir", tmp_path / "i", "--json"))
    assert own["dataset_digest"] != divided["dataset_digest"]
    status, output, _ = fulcrum("index", "-d", world, "--check")
    assert "0 unreadable images" in output


def test_suggestions_for_one_image(fulcrum, world, tmp_path):
    attacked = sorted((world / "images" / "confirm").glob("*-attack.png"))
    for path in attacked:
        predicted = succeed(fulcrum("explain", path, "--json"))["prediction"]["top"]
        label = next(
            r.split(",")[2] for r in (world / "manifest.csv").read_text().splitlines() if path.stem in r
        )
        if predicted != label:
            break
    else:
        raise AssertionError("no attack works")
    saved = tmp_path / "c.json"
    found = succeed(fulcrum("suggest", path, "--wanted", label, "--save", saved, "--json"))
    assert found["suggestions"]
    steered = succeed(fulcrum("steer", path, "--correction", saved, "--json", "--n-controls", 4))
    assert (steered["effect"]["after"]["top"] == label) == found["suggestions"][0]["flips"]
    assert steered["effect"]["before"]["top"] == predicted


def test_train_sae_writes_an_sae_that_explain_can_use(fulcrum, world, photo, tmp_path):
    trained = succeed(
        fulcrum("train-sae", "-d", world, "-o", tmp_path / "sae", "--variant", "batch_topk", "--d-sae", 128, "--k", 8,
                "--n-tokens", 20_000, "--batch-size", 512, "--split", "discover", "--json")
    )  # fmt: skip
    assert trained["completed"]
    assert trained["quality"]["fvu"] < trained["quality"]["untrained_fvu"]
    found = succeed(fulcrum("explain", photo, "--sae", tmp_path / "sae", "--json"))
    assert found["hook_point"] == trained["hook_point"]


def test_an_sae_of_another_trainer_is_imported_measured_and_used(fulcrum, world, photo, tmp_path):
    import torch

    from fulcrum.demo.shipped import demo_sae
    from fulcrum.science.sae.storage import load_sae

    demo = load_sae(Path(demo_sae()))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    tensors = {
        "encoder.weight": demo.W_enc.T.contiguous(),
        "encoder.bias": demo.b_enc,
        "decoder.weight": demo.W_dec.T.contiguous(),
        "b_dec": demo.b_dec,
    }
    torch.save({name: t.detach() for name, t in tensors.items()}, theirs / "ae.pt")
    k = demo.config.options["k"]
    (theirs / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoderTopK", "k": k}}))
    hook = demo.config.hook_point
    ours = tmp_path / "ours"
    imported = succeed(fulcrum("import-sae", theirs, "-o", ours, "--hook-point", hook, "-d", world, "--json"))
    assert (imported["variant"], imported["d_sae"]) == ("topk", demo.config.d_sae)
    assert imported["quality"]["fvu"] < imported["quality"]["untrained_fvu"]
    found = succeed(fulcrum("explain", photo, "--sae", ours, "--json"))
    shipped = succeed(fulcrum("explain", photo, "--json"))
    assert [x["latent"] for x in found["latents"]] == [x["latent"] for x in shipped["latents"]]
    fail(fulcrum("import-sae", world, "-o", ours, "--hook-point", hook, "--json"), "UNKNOWN_SAE")
    elsewhere = ("--hook-point", "visual.blocks.99.resid_post")
    fail(fulcrum("import-sae", theirs, "-o", ours, *elsewhere, "--json"), "INVALID_HOOK_POINT")


def test_two_processes_under_torchrun_train_the_sae_of_one(fulcrum, world, tmp_path):
    options = [
        "--d-sae",
        64,
        "--k",
        8,
        "--n-tokens",
        12_000,
        "--batch-size",
        512,
        "--split",
        "discover",
        "--json",
    ]
    alone = succeed(fulcrum("train-sae", "-d", world, "-o", tmp_path / "alone", *options))
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fulcrum.cli",
         "train-sae", "-d", str(world), "-o", str(tmp_path / "together"), *map(str, options)],
        env={**os.environ, "PYTHONPATH": str(root / "services")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    together = json.loads(done.stdout)
    assert (together["n_processes"], alone["n_processes"]) == (2, 1)
    for name in ("fvu", "l0", "cosine", "ce_recovered"):
        assert together["quality"][name] == pytest.approx(alone["quality"][name], rel=0.02), name
    assert together["tokens"] == alone["tokens"]


def test_bench_steer_reports_its_ratios(fulcrum):
    result = succeed(fulcrum("bench", "steer", "--model", "demo", "--rounds", 1, "--json"))
    assert set(result["ratios"]) == {
        "sweep_vs_full", "sweep_vs_batched_full", "split_vs_encode", "attribution_in_suffix_forwards",
    }  # fmt: skip
    assert all(value > 0 for value in result["ratios"].values())


def test_bench_validate_compares_answers_before_times(fulcrum):
    result = succeed(
        fulcrum(
            "bench", "validate", "--in-process", "--n-images", 200, "--depths", "mid", "--rounds", 1, "--json"
        )
    )
    assert result["ratios"]["predictions_equal"] is True
    singles = {f"single_{share}_mid" for share in ("2pct", "20pct", "100pct")}
    assert set(result["ratios"]) == singles | {"sweep_controls_mid", "predictions_equal"}
    assert result["cases"]["2pct_mid"]["n_affected"] < 50
    assert result["cases"]["2pct_mid"]["job"]["again_forward_images"] == 0


def test_bench_validate_asks_a_platform_and_compares_its_table(fulcrum):
    result = succeed(fulcrum("bench", "validate", "--n-images", 200, "--depths", "mid", "--json"))
    assert result["ratios"]["predictions_equal"] is True
    singles = {f"single_{share}_mid" for share in ("2pct", "20pct", "100pct")}
    assert set(result["ratios"]) == singles | {"again_mid", "sweep_controls_mid", "predictions_equal"}
    assert result["cases"]["2pct_mid"]["n_affected"] < 50 < result["cases"]["100pct_mid"]["n_affected"]


def test_bad_input_is_one_clear_line(fulcrum, photo, tmp_path, world):
    text = tmp_path / "notes.png"
    text.write_text("not an image")
    assert "not a PNG" in fail(fulcrum("explain", text, "--json"), "UNREADABLE_IMAGE")
    assert "nowhere" in fail(fulcrum("explain", tmp_path / "nowhere.png", "--json"), "UNREADABLE_IMAGE")
    whole = io.BytesIO()
    Image.new("RGB", (50, 50)).save(whole, "PNG")
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:60])
    fail(fulcrum("explain", tmp_path / "cut.png", "--json"), "UNREADABLE_IMAGE")
    header = bytearray(whole.getvalue())
    header[16:24] = (100_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(bytes(header))
    assert "100000" in fail(fulcrum("explain", tmp_path / "bomb.png", "--json"), "IMAGE_TOO_LARGE")
    fail(fulcrum("explain", photo, "--prompts", " , ", "--json"), "EMPTY_PROMPTS")
    fail(fulcrum("explain", photo, "--prompts", "a,,b", "--json"), "INVALID_PROMPT")
    assert "ViT-B-31" in fail(fulcrum("explain", photo, "-m", "ViT-B-31", "--random-weights", "-p", "a,b", "--json"),
                              "UNKNOWN_MODEL")  # fmt: skip
    fail(fulcrum("explain", photo, "-m", "ViT-B-32", "-p", "a,b", "--json"), "UNKNOWN_SAE")
    fail(fulcrum("explain", photo, "--target", "logit:boat,key", "--json"), "INVALID_INPUT")
    fail(fulcrum("explain", photo, "--target", "logit:unicorn", "--json"), "INVALID_TARGET")
    fail(fulcrum("explain", photo, "--method", "guess", "--json"), "INVALID_SETTINGS")
    fail(fulcrum("explain", photo, "--device", "tpu", "--json"), "INVALID_SETTINGS")
    fail(fulcrum("steer", photo, "--suppress", "1000000", "--json"), "LATENT_OUT_OF_RANGE")
    fail(fulcrum("steer", photo, "--suppress", "many", "--json"), "INVALID_EDIT")
    fail(fulcrum("steer", photo, "--json"), "INVALID_EDIT")
    fail(fulcrum("steer", photo, "--suppress", "1", "--scope", "9999", "--json"), "INVALID_EDIT")
    fail(fulcrum("explain", photo, "--sae", "untrained:topk:64:4@visual.blocks.99.resid_post", "--json"),
         "INVALID_HOOK_POINT")  # fmt: skip
    last = "untrained:topk:64:4@visual.blocks.5.resid_post"
    message = fail(fulcrum("steer", photo, "--sae", last, "--suppress", "1", "--scope", "patches", "--json"),
                   "EDIT_CANNOT_REACH_OUTPUT")  # fmt: skip
    assert "output" in message
    fail(fulcrum("index", "-d", tmp_path / "nothing", "--json"), "UNKNOWN_DATASET")
    fail(fulcrum("suggest", "-d", world, "-w", "sticker_kind=gold", "--json"), "INVALID_DATASET")
    fail(
        fulcrum("suggest", "-d", world, "-w", "sticker_kind=attack", "--split", "confirm", "--json"),
        "INVALID_INPUT",
    )
    fail(
        fulcrum("suggest", "-d", world, "-w", "sticker_kind=attack", "--split", "", "--json"), "INVALID_INPUT"
    )
    missing = tmp_path / "missing" / "c.json"
    fail(fulcrum("steer", photo, "--suppress", "1", "--save", missing, "--json"), "INVALID_SETTINGS")
    fail(fulcrum("explain", photo.parent, "--json"), "UNREADABLE_IMAGE")
    fail(fulcrum("demo", "--out", photo, "--json"), "FILE_ERROR")
    (tmp_path / "no.json").write_text("{}")
    fail(fulcrum("validate", "-c", tmp_path / "no.json", "-d", world, "--json"), "INVALID_EDIT")
    (tmp_path / "m.csv").write_text("id,source,label\n1,gone.png,boat\n")
    assert "gone.png" in fail(fulcrum("index", "-d", tmp_path / "m.csv", "--json"), "MISSING_FILES")


def test_labels_may_hold_a_comma(fulcrum, world, tmp_path):
    rows = (world / "manifest.csv").read_text().splitlines()[1:9]
    lines = ["id,source,label,split"]
    for row in rows:
        name, source, label = row.split(",")[:3]
        (tmp_path / f"{name}.png").write_bytes((world / source).read_bytes())
        lines.append(f'{name},{name}.png,"{label}, drawn",discover')
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    saved = tmp_path / "c.json"
    image = tmp_path / f"{rows[0].split(',')[0]}.png"
    succeed(fulcrum("steer", image, "--suppress", "1", "--save", saved, "--json", "--n-controls", 0))
    command = (
        "validate",
        "-c",
        saved,
        "-d",
        tmp_path / "m.csv",
        "--split",
        "discover",
        "--n-controls",
        0,
        "--json",
    )
    report = succeed(fulcrum(*command))
    assert report["overall"]["n"] == 8
    assert all(", drawn" in name for name in report["provenance"]["class_names"])


def test_weights_that_do_not_load_are_never_replaced_by_random_ones(fulcrum, photo, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"not weights")
    options = ("-m", "ViT-B-32", "--pretrained", tmp_path / "weights.safetensors", "-p", "a,b", "--json")
    fail(fulcrum("explain", photo, *options, "--sae", "untrained:topk:64:4"), "CORRUPT_CHECKPOINT")


def test_an_sae_of_another_model_is_refused(fulcrum, photo):
    from fulcrum.demo.shipped import demo_sae

    options = ("-m", "ViT-B-32", "--random-weights", "-p", "a,b", "--sae", demo_sae(), "--json")
    fail(fulcrum("explain", photo, *options), "SAE_DOES_NOT_FIT")


def test_help_names_the_commands(fulcrum):
    status, output, _ = fulcrum("--help")
    assert status == 0
    for name in ("demo", "explain", "steer", "suggest", "validate", "index", "train-sae", "bench"):
        assert name in output


def test_errors_for_people_go_to_stderr_without_a_traceback(fulcrum, tmp_path):
    status, output, err = fulcrum("explain", tmp_path / "nowhere.png")
    assert status == 2
    assert output == ""
    assert err.startswith("error: ")
    assert "[UNREADABLE_IMAGE]" in err
