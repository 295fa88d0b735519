"""Loaded completely, or an error that names the cause; never silently random (SCIENCE.md 8, trap 3)."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from fulcrum.domain.errors import CorruptCheckpoint, InvalidSettings, MissingDependency, UnknownModel
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.models import ModelRef
from fulcrum.science.vision.classes import encode_texts
from fulcrum.science.vision.loading import load_model
from fulcrum.science.vision.sources import resolve
from fulcrum.science.vision.tokenizers import PromptTokenizer
from fulcrum.science.vision.towers import split_tower

from .small_models import TINY, randomise, shrunk

WEIGHTS = "open_clip_model.safetensors"
Write = Callable[..., Path]


@pytest.fixture
def folder(folder_of: Write) -> Path:
    """A complete `local-dir:` model."""
    folder = folder_of(TINY, {"mean": [0.5, 0.5, 0.5], "resize_mode": "squash"})
    model = load_model(ModelRef(f"local-dir:{folder}", random_weights=True, seed=1)).model
    randomise(model)
    save_file(model.state_dict(), folder / WEIGHTS)
    return folder


def test_a_model_says_how_it_sees_an_image(folder):
    loaded = load_model(ModelRef(f"local-dir:{folder}"))
    assert loaded.info.resize_mode == loaded.preprocess.geometry.resize_mode == "squash"


def ref(folder: Path, **options: Any) -> ModelRef:
    return ModelRef(f"local-dir:{folder}", **options)


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Alters the checkpoint of a folder."""
    state = load_file(folder / WEIGHTS)
    edit(state)
    save_file(state, folder / WEIGHTS)


class TestCompleteModels:
    def test_a_folder_gives_what_openclip_loads_from_it(self, folder: Path) -> None:
        theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        theirs.eval().requires_grad_(
            False
        )  # torch runs attention otherwise, and rounds otherwise, with gradients
        ours = load_model(ref(folder))
        image = Image.effect_noise((50, 40), 80).convert("RGB")
        pixels = ours.preprocess([image])
        tokens = ours.tokenizer(["a cat"])
        assert torch.equal(pixels[0], transform(image))
        assert torch.equal(ours.model.encode_image(pixels), theirs.encode_image(pixels))
        assert torch.equal(ours.model.encode_text(tokens), theirs.encode_text(tokens))

    def test_the_model_is_frozen_and_in_eval_mode(self, folder: Path) -> None:
        model = load_model(ref(folder)).model
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())

    def test_the_info_describes_the_model(self, folder: Path) -> None:
        info = load_model(ref(folder)).info
        assert (info.n_blocks, info.d_model, info.d_embed, info.n_tokens, info.grid) == (
            3,
            32,
            24,
            17,
            (4, 4),
        )
        assert (info.has_cls, info.pooling, info.image_size, info.text_context_length) == (
            True,
            "tok",
            32,
            20,
        )
        assert (info.device, info.dtype, info.logit_bias) == ("cpu", "float32", None)
        assert info.n_parameters == sum(t.numel() for t in load_file(folder / WEIGHTS).values())
        assert info.hook_points[0] == "visual.blocks.0.resid_post"

    @pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_checkpoints_of_trainers_are_read(self, folder: Path, wrap: Any, prefix: str) -> None:
        expected = load_model(ref(folder)).info.weights_sha256
        state = {prefix + name: tensor for name, tensor in load_file(folder / WEIGHTS).items()}
        state[prefix + "logit_scale"] = state[prefix + "logit_scale"].reshape(1)
        torch.save(wrap(state), folder / "epoch_3.pt")
        loaded = load_model(ref(folder, pretrained=str(folder / "epoch_3.pt")))
        assert loaded.info.weights_sha256 == expected

    def test_older_names_of_the_text_tower_are_translated(self, folder_of: Write, folder: Path) -> None:
        custom = folder_of({**TINY, "custom_text": True})
        loaded = load_model(ref(custom, pretrained=str(folder / WEIGHTS)))
        tokens = loaded.tokenizer(["a cat"])
        assert torch.equal(
            loaded.model.encode_text(tokens), load_model(ref(folder)).model.encode_text(tokens)
        )

    def test_a_local_checkpoint_fills_a_named_architecture(self, tmp_path: Path) -> None:
        random = load_model(ModelRef("ViT-S-32-alt", random_weights=True, seed=3))
        save_file(random.model.state_dict(), tmp_path / "mine.safetensors")
        loaded = load_model(ModelRef("ViT-S-32-alt", str(tmp_path / "mine.safetensors")))
        assert loaded.info.weights_sha256 == random.info.weights_sha256
        images = torch.randn(1, 3, 224, 224)
        assert torch.equal(loaded.model.encode_image(images), random.model.encode_image(images))
        tokens = loaded.tokenizer(["a dog"])
        assert torch.equal(loaded.model.encode_text(tokens), random.model.encode_text(tokens))

    def test_low_precision_keeps_the_identity_of_the_weights(self, folder: Path) -> None:
        full, low = load_model(ref(folder)), load_model(ref(folder), dtype=torch.bfloat16)
        assert low.info.weights_sha256 == full.info.weights_sha256
        assert (low.info.dtype, low.model.visual.conv1.weight.dtype) == ("bfloat16", torch.bfloat16)
        tower = split_tower(low, HookPoint("visual", 1, "resid_post"))
        assert tower.suffix(tower.prefix(torch.randn(2, 3, 32, 32))).dtype == torch.bfloat16
        cosine = (encode_texts(low, ["cat"]) * encode_texts(full, ["cat"])).sum()
        assert cosine > 0.99

    def test_one_changed_number_changes_the_identity(self, folder: Path) -> None:
        before = load_model(ref(folder)).info.weights_sha256
        assert load_model(ref(folder)).info.weights_sha256 == before
        change(folder, lambda s: s["visual.proj"][0, 0].add_(1e-3))
        assert load_model(ref(folder)).info.weights_sha256 != before


class TestRandomWeights:
    def test_they_are_openclips_own_initialisation_under_the_seed(self, folder_of: Write) -> None:
        loaded = load_model(ref(folder_of(TINY), random_weights=True, seed=7))
        torch.manual_seed(7)
        theirs = open_clip.model.CLIP(**TINY).state_dict()
        assert all(torch.equal(t, theirs[n]) for n, t in loaded.model.state_dict().items())

    @pytest.mark.parametrize("name", ["ViT-B-32", "coca_ViT-B-32"])
    def test_they_depend_on_the_seed_alone(self, folder_of: Write, name: str) -> None:
        """CoCa leaves one matrix as it was found in memory, so the same seed used to give another model."""
        config = shrunk(
            name,
            {"layers": 1, "width": 64, "image_size": 64},
            {"layers": 1, "width": 32, "heads": 2, "vocab_size": 99},
        )
        folder = folder_of(config)
        hashes = [load_model(ref(folder, random_weights=True, seed=s)).info.weights_sha256 for s in (0, 0, 1)]
        assert hashes[0] == hashes[1] != hashes[2]

    def test_they_leave_the_global_generator_as_it_was(self, folder_of: Write) -> None:
        before = torch.get_rng_state()
        load_model(ref(folder_of(TINY), random_weights=True))
        assert torch.equal(torch.get_rng_state(), before)

    def test_they_are_given_only_when_asked_for(self) -> None:
        with pytest.raises(
            UnknownModel, match=r"without weights: name a pretrained tag \(openai.*random weights"
        ):
            load_model(ModelRef("ViT-B-16"))

    def test_they_exclude_real_ones(self, folder: Path) -> None:
        with pytest.raises(InvalidSettings, match="exclude each other"):
            load_model(ref(folder, pretrained=str(folder / WEIGHTS), random_weights=True))

    def test_a_text_tower_that_is_not_here_is_not_fetched(self, folder_of: Write) -> None:
        config = {
            **TINY,
            "text_cfg": {"hf_model_name": "nobody/never-was", "hf_tokenizer_name": "nobody/never-was"},
        }
        with pytest.raises(UnknownModel, match="'nobody/never-was' is not on this machine"):
            load_model(ref(folder_of(config), random_weights=True))


class TestWhatCannotBeLoaded:
    def test_garbage(self, folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(b"not a checkpoint" * 100)
        with pytest.raises(CorruptCheckpoint, match="cannot be read"):
            load_model(ref(folder))

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
    def test_a_truncated_safetensors_file(self, folder: Path, share: float) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(data[: int(len(data) * share)])
        with pytest.raises(CorruptCheckpoint, match="cannot be read"):
            load_model(ref(folder))

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
    def test_a_truncated_torch_file(self, folder: Path, share: float) -> None:
        path = folder / "weights.pt"
        torch.save(load_file(folder / WEIGHTS), path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        with pytest.raises(CorruptCheckpoint):
            load_model(ref(folder, pretrained=str(path)))

    def test_a_missing_tensor(self, folder: Path) -> None:
        change(folder, lambda s: s.pop("visual.proj"))
        with pytest.raises(CorruptCheckpoint, match=r"1 missing \(visual.proj\)"):
            load_model(ref(folder))

    def test_a_tensor_too_many(self, folder: Path) -> None:
        change(folder, lambda s: s.update({"visual.extra": torch.zeros(1)}))
        with pytest.raises(CorruptCheckpoint, match=r"1 left over \(visual.extra\)"):
            load_model(ref(folder))

    def test_another_architecture(self, folder_of: Write, folder: Path) -> None:
        wider = folder_of({**TINY, "vision_cfg": {**TINY["vision_cfg"], "width": 48}})
        with pytest.raises(CorruptCheckpoint, match=r"of another shape \(.*instead of"):
            load_model(ref(wider, pretrained=str(folder / WEIGHTS)))

    def test_another_image_size_which_openclip_would_interpolate(
        self, folder_of: Write, folder: Path
    ) -> None:
        larger = folder_of({**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": 48}})
        with pytest.raises(
            CorruptCheckpoint, match=r"visual.positional_embedding \(17, 32\) instead of \(37, 32\)"
        ):
            load_model(ref(larger, pretrained=str(folder / WEIGHTS)))

    def test_a_missing_logit_bias_which_openclip_would_take_for_zero(
        self, folder_of: Write, folder: Path
    ) -> None:
        sigmoid = folder_of({**TINY, "init_logit_bias": -10})
        with pytest.raises(CorruptCheckpoint, match="logit_bias"):
            load_model(ref(sigmoid, pretrained=str(folder / WEIGHTS)))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_numbers_that_are_not_finite(self, folder: Path, value: float) -> None:
        change(folder, lambda s: s["ln_final.weight"][3:4].fill_(value))
        with pytest.raises(CorruptCheckpoint, match=r"1 not finite \(ln_final.weight\)"):
            load_model(ref(folder))

    def test_whole_numbers_for_weights(self, folder: Path) -> None:
        change(folder, lambda s: s.update({"ln_final.weight": torch.ones(32, dtype=torch.int8)}))
        with pytest.raises(CorruptCheckpoint, match="of another kind"):
            load_model(ref(folder))

    def test_a_pickle_that_needs_code_without_running_it(self, folder: Path, tmp_path: Path) -> None:
        class Code:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path / "ran",))

        for name, write in (
            ("zip.pt", torch.save),
            ("plain.pt", lambda o, p: p.write_bytes(pickle.dumps(o, 2))),
        ):
            write({"visual.proj": Code()}, folder / name)
            with pytest.raises(CorruptCheckpoint):
                load_model(ref(folder, pretrained=str(folder / name)))
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("content", [[1, 2], {}, {"visual.proj": "text"}, torch.zeros(3)])
    def test_a_torch_file_of_something_else(self, folder: Path, content: Any) -> None:
        torch.save(content, folder / "other.pt")
        with pytest.raises(CorruptCheckpoint, match="holds"):
            load_model(ref(folder, pretrained=str(folder / "other.pt")))

    def test_a_numpy_checkpoint(self, folder: Path) -> None:
        (folder / "weights.npz").write_bytes(b"PK")
        with pytest.raises(CorruptCheckpoint, match="NumPy"):
            load_model(ref(folder, pretrained=str(folder / "weights.npz")))


class TestReferences:
    def test_an_unknown_architecture_with_its_neighbours(self) -> None:
        with pytest.raises(UnknownModel, match=r"'ViT-B-33'; close to it: .*ViT-B-32"):
            load_model(ModelRef("ViT-B-33", "openai"))

    def test_an_unknown_tag_with_those_that_exist(self) -> None:
        with pytest.raises(UnknownModel, match=r"'nobody_s0b' is neither .*laion400m_e31"):
            load_model(ModelRef("ViT-B-32", "nobody_s0b"))

    def test_weights_trained_with_another_activation(self) -> None:
        """OpenCLIP warns and goes on, with plausible, worse numbers."""
        with pytest.raises(UnknownModel, match="use 'ViT-B-32-quickgelu'"):
            load_model(ModelRef("ViT-B-32", "openai"))

    def test_weights_that_cannot_be_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*_: Any) -> str:
            raise OSError("no route to host")

        monkeypatch.setattr(open_clip, "download_pretrained", offline)
        with pytest.raises(
            UnknownModel, match=r"'laion2b_s34b_b79k' .* could not be fetched: no route to host"
        ):
            load_model(ModelRef("ViT-B-32", "laion2b_s34b_b79k"))

    def test_a_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownModel, match="does not exist"):
            load_model(ref(tmp_path / "none"))

    def test_a_folder_without_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownModel, match=r"holds no open_clip_config.json"):
            load_model(ref(tmp_path))

    @pytest.mark.parametrize(
        "text", ["{", "[]", "{}", '{"model_cfg": {"embed_dim": 3}}', '{"model_cfg": null}']
    )
    def test_a_configuration_that_is_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "open_clip_config.json").write_text(text)
        with pytest.raises(CorruptCheckpoint, match="not an OpenCLIP configuration"):
            load_model(ref(tmp_path))

    def test_a_configuration_that_cannot_be_built(self, folder_of: Write) -> None:
        config = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "depth": 3}}
        with pytest.raises(UnknownModel, match="cannot be built"):
            load_model(ref(folder_of(config), random_weights=True))

    def test_a_folder_without_weights(self, folder_of: Write) -> None:
        with pytest.raises(UnknownModel, match="found: none"):
            load_model(ref(folder_of(TINY)))

    def test_a_folder_with_weights_that_are_not_unique(self, folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).unlink()
        for name in ("a.safetensors", "b.safetensors"):
            (folder / name).write_bytes(data)
        with pytest.raises(UnknownModel, match=r"found: a.safetensors, b.safetensors"):
            load_model(ref(folder))
        (folder / "b.safetensors").unlink()
        assert load_model(ref(folder)).info.n_blocks == 3

    def test_a_tag_for_a_folder_which_openclip_would_ignore(self, folder: Path) -> None:
        with pytest.raises(UnknownModel, match="brings its own"):
            load_model(ref(folder, pretrained="openai"))


class TestTokenizers:
    def test_a_merges_file_lies_in_the_models_folder(self, folder: Path) -> None:
        tokenizer = load_model(ref(folder)).tokenizer
        assert tokenizer.kind == "model"
        assert tokenizer(["A b"])[0, :5].tolist() == [512, 256 + ord("a") - 33, 256 + ord("b") - 33, 513, 0]

    @pytest.mark.parametrize("name", ["../outside.gz", "/etc/hostname", "missing.gz"])
    def test_a_path_out_of_the_folder_or_to_nothing_is_refused(self, folder_of: Write, name: str) -> None:
        config = {**TINY, "text_cfg": {**TINY["text_cfg"], "tokenizer_kwargs": {"bpe_path": name}}}
        folder = folder_of(config)
        (folder.parent / "outside.gz").write_bytes((folder / "bytes.txt.gz").read_bytes())
        loaded = load_model(ref(folder, random_weights=True))
        with pytest.raises(CorruptCheckpoint, match="bpe_path"):
            loaded.tokenizer(["cat"])

    def test_an_option_that_would_run_code_is_refused(self, folder_of: Write) -> None:
        config = {**TINY, "text_cfg": {**TINY["text_cfg"], "tokenizer_kwargs": {"trust_remote_code": True}}}
        with pytest.raises(CorruptCheckpoint, match="trust_remote_code"):
            load_model(ref(folder_of(config), random_weights=True)).tokenizer(["cat"])

    def test_a_vocabulary_larger_than_the_models_is_refused(self, folder_of: Write) -> None:
        config = {**TINY, "text_cfg": {**TINY["text_cfg"], "vocab_size": 300}}
        with pytest.raises(CorruptCheckpoint, match="ids up to 513, the model has a vocabulary of 300"):
            load_model(ref(folder_of(config), random_weights=True)).tokenizer(["cat"])

    def test_random_weights_have_a_stand_in_for_a_tokenizer_that_is_not_here(self, folder_of: Write) -> None:
        """`ViT-B-16-SigLIP` with random weights must answer on a machine without network."""
        config = shrunk(
            "ViT-B-32-SigLIP2-256", {"layers": 1}, {"layers": 1, "width": 32, "heads": 2, "vocab_size": 600}
        )
        loaded = load_model(ref(folder_of(config), random_weights=True))
        assert loaded.tokenizer.kind == "bytes"
        embeds = encode_texts(loaded, ["a cat", "a dog", "ein Käfer"])
        assert torch.linalg.matrix_rank(embeds) == 3
        assert torch.equal(embeds, encode_texts(loaded, ["a cat", "a dog", "ein Käfer"]))
        assert loaded.probs_kind == "sigmoid"

    def test_a_named_architecture_without_its_tokenizer_has_the_stand_in_too(self) -> None:
        source = resolve(ModelRef("ViT-B-16-SigLIP", random_weights=True))
        text = {**source.config["text_cfg"], "hf_tokenizer_name": "nobody/never-was"}
        tokenizer = PromptTokenizer(replace(source, config={**source.config, "text_cfg": text}))
        assert tokenizer.kind == "bytes"
        assert tokenizer(["a cat"]).shape == (1, 64)

    @pytest.mark.parametrize(("pool_type", "end"), [("argmax", 599), ("eos", 2), ("last", 599)])
    def test_the_stand_in_ends_where_the_model_pools(
        self, folder_of: Write, pool_type: str, end: int
    ) -> None:
        text = {
            "vocab_size": 600,
            "context_length": 16,
            "pool_type": pool_type,
            "hf_tokenizer_name": "nobody/x",
        }
        source = resolve(ref(folder_of({**TINY, "text_cfg": text}), random_weights=True))
        tokens = PromptTokenizer(source)(["ab"])
        assert tokens[0].tolist() == [598, 3 + ord("a"), 3 + ord("b"), end] + [0] * 12

    def test_real_weights_never_meet_the_stand_in(self, folder: Path) -> None:
        path = folder / "open_clip_config.json"
        content = json.loads(path.read_text())
        content["model_cfg"]["text_cfg"].update({"hf_tokenizer_name": "nobody/x", "tokenizer_kwargs": {}})
        path.write_text(json.dumps(content))
        loaded = load_model(ref(folder))
        with pytest.raises(MissingDependency, match="tokenizer 'nobody/x'"):
            loaded.tokenizer(["cat"])


class TestTowersThatCannotBeSplit:
    @pytest.mark.parametrize("name", ["RN50", "convnext_tiny"])
    def test_they_run_and_say_what_is_supported(self, folder_of: Write, name: str) -> None:
        vision = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64} if name == "RN50" else {}
        loaded = load_model(
            ref(folder_of(shrunk(name, vision, {"layers": 1, "width": 32, "heads": 2})), random_weights=True)
        )
        assert loaded.info.n_blocks == 0
        assert all(point.startswith("text.") for point in loaded.info.hook_points)
        with pytest.raises(UnknownModel, match=r"supported: .*VisionTransformer"):
            split_tower(loaded, HookPoint("visual", 0, "resid_post"))
