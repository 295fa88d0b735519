"""SAEs of other trainers: the same function, against twins from their definitions and against the trainers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fulcrum.domain.errors import CorruptCheckpoint, InvalidSaeConfig, UnknownSae
from fulcrum.engine.foreign_saes import LAYOUTS, read_foreign
from fulcrum.science.sae.base import Sae
from fulcrum.science.sae.storage import load_sae, save_sae

D_IN, D_SAE, K, N = 6, 12, 3, 40
PLACE = ("visual.blocks.2.resid_post", "some-model", "a" * 64, "b" * 64)

Tensors = dict[str, Tensor]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = drawn(N, D_IN, seed=9)
LINEAR = {
    "encoder.weight": drawn(D_SAE, D_IN, seed=1),
    "encoder.bias": drawn(D_SAE, seed=2),
    "decoder.weight": drawn(D_IN, D_SAE, seed=3),
    "b_dec": drawn(D_IN, seed=4),
    "k": torch.tensor(K),
    "threshold": torch.tensor(0.7),
}
PLAIN = {
    "W_enc": drawn(D_IN, D_SAE, seed=1),
    "b_enc": drawn(D_SAE, seed=2),
    "W_dec": drawn(D_SAE, D_IN, seed=3),
    "b_dec": drawn(D_IN, seed=4),
}


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: value for name, value in tensors.items() if name not in names}


def largest(pre: Tensor) -> Tensor:
    """The k largest of each row, one by one."""
    z = torch.zeros_like(pre)
    for row in range(len(pre)):
        for column in sorted(range(D_SAE), key=lambda j, r=row: -float(pre[r, j]))[:K]:
            z[row, column] = pre[row, column]
    return z


def linear_pre(t: Tensors, x: Tensor) -> Tensor:
    return torch.relu(x @ t["encoder.weight"].T + t["encoder.bias"])


# Class: its tensors, latents of x, and x_hat of latents, as its source defines them.
CLASSES: dict[
    str, tuple[Tensors, Callable[[Tensors, Tensor], Tensor], Callable[[Tensors, Tensor], Tensor]]
] = {
    "AutoEncoder": (
        {**without(LINEAR, "b_dec", "k", "threshold"), "bias": LINEAR["b_dec"]},
        lambda t, x: linear_pre(t, x - t["bias"]),
        lambda t, z: z @ t["decoder.weight"].T + t["bias"],
    ),
    "AutoEncoderNew": (
        {**without(LINEAR, "b_dec", "k", "threshold"), "decoder.bias": LINEAR["b_dec"]},
        lambda t, x: linear_pre(t, x),
        lambda t, z: z @ t["decoder.weight"].T + t["decoder.bias"],
    ),
    "AutoEncoderTopK": (
        LINEAR,
        lambda t, x: largest(linear_pre(t, x - t["b_dec"])),
        lambda t, z: z @ t["decoder.weight"].T + t["b_dec"],
    ),
    "BatchTopKSAE": (
        LINEAR,
        lambda t, x: linear_pre(t, x - t["b_dec"]) * (linear_pre(t, x - t["b_dec"]) > t["threshold"]),
        lambda t, z: z @ t["decoder.weight"].T + t["b_dec"],
    ),
    "MatryoshkaBatchTopKSAE": (
        {
            **PLAIN,
            "threshold": torch.tensor(0.7),
            "k": torch.tensor(K),
            "group_sizes": torch.tensor([3, 4, 5]),
        },
        lambda t, x: (p := torch.relu((x - t["b_dec"]) @ t["W_enc"] + t["b_enc"])) * (p > t["threshold"]),
        lambda t, z: z @ t["W_dec"] + t["b_dec"],
    ),
    "JumpReluAutoEncoder": (
        {**PLAIN, "threshold": drawn(D_SAE, seed=5)},  # some of them below zero
        lambda t, x: torch.relu((p := x @ t["W_enc"] + t["b_enc"]) * (p > t["threshold"])),
        lambda t, z: z @ t["W_dec"] + t["b_dec"],
    ),
    "GatedAutoEncoder": (
        {
            "encoder.weight": LINEAR["encoder.weight"],
            "decoder.weight": LINEAR["decoder.weight"],
            "decoder_bias": LINEAR["b_dec"],
            "gate_bias": drawn(D_SAE, seed=6),
            "mag_bias": drawn(D_SAE, seed=7),
            "r_mag": drawn(D_SAE, seed=8),
        },
        lambda t, x: (
            ((p := (x - t["decoder_bias"]) @ t["encoder.weight"].T) + t["gate_bias"] > 0)
            * torch.relu(t["r_mag"].exp() * p + t["mag_bias"])
        ),
        lambda t, z: z @ t["decoder.weight"].T + t["decoder_bias"],
    ),
}


def write_dictionary(folder: Path, kind: str, tensors: Tensors, **trainer: Any) -> Path:
    torch.save(tensors, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, "k": K, **trainer}}))
    return folder


def write_sparsify(folder: Path, tensors: Tensors | None = None, **cfg: Any) -> Path:
    found = {
        "encoder.weight": LINEAR["encoder.weight"],
        "encoder.bias": LINEAR["encoder.bias"],
        "W_dec": drawn(D_SAE, D_IN, seed=3),
        "b_dec": LINEAR["b_dec"],
    }
    save_file(tensors or found, folder / "sae.safetensors")
    standard = {
        "activation": "topk",
        "k": K,
        "d_in": D_IN,
        "num_latents": D_SAE,
        "transcode": False,
        "skip_connection": False,
    }
    (folder / "cfg.json").write_text(json.dumps(standard | cfg))
    return folder


def read(folder: Path) -> Sae:
    return read_foreign(folder, *PLACE)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_dictionary_is_the_function_that_its_class_defines(kind: str, tmp_path: Path) -> None:
    tensors, latents, decode = CLASSES[kind]
    sae = read(write_dictionary(tmp_path, kind, tensors))
    wide = {name: value.double() for name, value in tensors.items()}
    z = latents(wide, X.double())
    torch.testing.assert_close(sae.encode(X), z.float())
    torch.testing.assert_close(sae(X), decode(wide, z).float())
    assert 0 < int((z > 0).sum()) < z.numel()


def test_an_sae_of_sparsify_is_the_function_that_it_defines(tmp_path: Path) -> None:
    sae = read(write_sparsify(tmp_path))
    z = largest(linear_pre(LINEAR, X - LINEAR["b_dec"]))
    torch.testing.assert_close(sae.encode(X), z)
    torch.testing.assert_close(sae(X), z @ drawn(D_SAE, D_IN, seed=3) + LINEAR["b_dec"])


@pytest.mark.parametrize("kind", CLASSES)
def test_what_was_imported_is_written_in_our_layout_with_its_place(kind: str, tmp_path: Path) -> None:
    sae = read(write_dictionary(tmp_path, kind, CLASSES[kind][0]))
    save_sae(sae, tmp_path / "ours")
    again = load_sae(tmp_path / "ours")
    torch.testing.assert_close(again(X), sae(X))
    assert (again.config.hook_point, again.config.model_sha256) == (PLACE[0], PLACE[2])
    if kind == "MatryoshkaBatchTopKSAE":
        assert again.config.options == {"k": K, "prefixes": [3, 7, 12]}


def test_a_threshold_from_before_the_first_batch_only_rectifies(tmp_path: Path) -> None:
    tensors = LINEAR | {"threshold": torch.tensor(-1.0)}
    sae = read(write_dictionary(tmp_path, "BatchTopKSAE", tensors))
    torch.testing.assert_close(sae.encode(X), linear_pre(LINEAR, X - LINEAR["b_dec"]))


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        ({"transcode": True}, "transcode"),
        ({"skip_connection": True}, "skip_connection"),
        ({"activation": "groupmax"}, "groupmax"),
        ({"k": "many"}, "k='many'"),
        ({"k": 0}, "k=0"),
        ({"k": D_SAE + 1}, "k="),
    ],
)
def test_what_our_variants_cannot_express_is_refused(cfg: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSaeConfig, match=words):
        read(write_sparsify(tmp_path, **cfg))


def test_an_unknown_class_a_missing_tensor_and_another_shape_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSaeConfig, match="CrossCoder"):
        read(write_dictionary(tmp_path, "CrossCoder", LINEAR))
    with pytest.raises(CorruptCheckpoint, match=r"encoder\.bias"):
        read(write_dictionary(tmp_path, "AutoEncoderTopK", without(LINEAR, "encoder.bias")))
    with pytest.raises(CorruptCheckpoint, match="b_enc has shape"):
        read(write_dictionary(tmp_path, "AutoEncoderTopK", LINEAR | {"encoder.bias": torch.zeros(5)}))
    bad = LINEAR | {"b_dec": torch.full((D_IN,), torch.nan)}
    with pytest.raises(CorruptCheckpoint, match="nan or inf"):
        read(write_dictionary(tmp_path, "AutoEncoderTopK", bad))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CorruptCheckpoint, match="not JSON"):
        read(tmp_path)
    (tmp_path / "config.json").write_text('{"trainer": 3}')
    with pytest.raises(InvalidSaeConfig, match="dict_class=None"):
        read(tmp_path)


def test_a_pickle_that_runs_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    write_dictionary(tmp_path, "AutoEncoderTopK", {"k": Evil()})  # type: ignore[dict-item]
    with pytest.raises(CorruptCheckpoint, match="pickle"):
        read(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_an_sae_says_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownSae) as caught:
        read(tmp_path)
    assert all(name in str(caught.value) for name in LAYOUTS)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_trainer_itself_agrees(kind: str, tmp_path: Path) -> None:
    dictionary = pytest.importorskip("dictionary_learning.utils")
    tensors = {name: value.clone() for name, value in CLASSES[kind][0].items()}
    write_dictionary(tmp_path, kind, tensors)
    theirs, _ = dictionary.load_dictionary(str(tmp_path), "cpu")
    # As it was saved: loading may normalise the decoder, which only moves a factor.
    torch.testing.assert_close(read(tmp_path)(X), theirs(X).detach(), rtol=1e-4, atol=1e-4)


def test_sparsify_itself_agrees(tmp_path: Path) -> None:
    sparsify = pytest.importorskip("sparsify")
    theirs = sparsify.SparseCoder.load_from_disk(write_sparsify(tmp_path))
    top, indices, _ = theirs.encode(X)
    # Its own decode is this one, or a kernel that needs a GPU.
    x_hat = sparsify.utils.eager_decode(indices, top, theirs.W_dec.mT) + theirs.b_dec
    torch.testing.assert_close(read(tmp_path)(X), x_hat.detach())
