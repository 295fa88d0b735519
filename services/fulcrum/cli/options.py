"""Options that several subcommands share, and what they mean."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fulcrum.domain.errors import EmptyPrompts, InvalidInput, InvalidSettings, UnknownSae, UnreadableImage
from fulcrum.domain.models import ModelRef
from fulcrum.domain.tasks import (
    DEFAULT_TEMPLATES,
    ClassSet,
    CosineTarget,
    LogitTarget,
    LogProbTarget,
    MarginTarget,
)

if TYPE_CHECKING:
    from fulcrum.domain.concept_sets import ConceptSet
    from fulcrum.domain.tasks import Target
    from fulcrum.engine.local import LocalEngine

DEMO = "demo"

Image = Annotated[Path, typer.Argument(help="PNG, JPEG or WebP file.", show_default=False)]
Prompts = Annotated[
    str | None,
    typer.Option(
        "--prompts", "-p", help="Class prompts, separated by commas. Default: the demo world's classes."
    ),
]
Template = Annotated[
    list[str] | None,
    typer.Option(
        "--template", help="Prompt template with {} where the class goes; may be given several times."
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="'demo', an OpenCLIP architecture, 'hf-hub:owner/name' or 'local-dir:folder'."
    ),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        "--pretrained", help="OpenCLIP tag, or a checkpoint file (safetensors, or tensors-only .pt)."
    ),
]
RandomWeights = Annotated[
    bool,
    typer.Option(
        "--random-weights", help="Use an untrained model: for trying things out, never for findings."
    ),
]
SaePath = Annotated[
    str | None,
    typer.Option(
        "--sae",
        help="Folder of an SAE, or 'untrained:<variant>:<d_sae>:<k>[@hook point]' for an untrained one, or "
        "'units:<hook point>', such as 'units:visual.blocks.3.mlp_in', for the units of a layer themselves. "
        "Default: the demo's SAE with the demo model, an untrained TopK SAE of its middle block with random weights.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:<number>.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
Target_ = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="What is explained: 'margin:a,b', 'logit:a', 'log_prob:a' or 'cosine:a'. "
        "Default: the margin of the prediction over the runner-up.",
    ),
]


@dataclass(frozen=True)
class Setup:
    """A model with its SAE, loaded."""

    engine: "LocalEngine"
    model: ModelRef
    sae: str


def open_engine(
    model: str, pretrained: str | None, random_weights: bool, sae: str | None, device: str
) -> Setup:
    """Loads model and SAE as the options say."""
    from fulcrum.engine.local import LocalEngine

    ref = model_ref(model, pretrained, random_weights)
    chosen = sae or _default_sae(model, random_weights)
    if chosen is None:
        raise UnknownSae(
            f"no SAE is known for {model!r}: give one with --sae, train one with 'fulcrum train-sae', "
            "or try 'untrained:topk:4096:32'"
        )
    engine = LocalEngine(device=resolve_device(device))
    engine.load_model(ref)
    engine.load_sae(chosen, ref)
    return Setup(engine, ref, chosen)


def model_ref(model: str, pretrained: str | None, random_weights: bool) -> ModelRef:
    """What the three model options mean together. Raises InvalidSettings."""
    if model != DEMO:
        return ModelRef(model, pretrained, random_weights)
    if pretrained is not None or random_weights:
        raise InvalidSettings(
            "the demo model brings its weights: leave out --pretrained and --random-weights"
        )
    from fulcrum.demo.shipped import demo_model

    return demo_model()


def _default_sae(model: str, random_weights: bool) -> str | None:
    if model == DEMO:
        from fulcrum.demo.shipped import demo_sae

        return demo_sae()
    return "untrained:topk:4096:32" if random_weights else None


def resolve_device(device: str) -> str:
    """'auto' is the first GPU where there is one. Raises InvalidSettings for a device that is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or (kind == "cpu" and number):
        raise InvalidSettings(f"device {device!r} is not one of auto, cpu, cuda, cuda:<number>")
    if kind == "cuda" and (not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count()):
        raise InvalidSettings(f"device {device!r} is not there: torch sees {torch.cuda.device_count()} GPUs")
    return device


def read_image(path: Path) -> bytes:
    """Raises UnreadableImage when there is no such file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """With or without the mark that spreadsheets write in front. Raises InvalidSettings for what is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidSettings(f"{path} is not UTF-8: save it so") from None


def check_parent(path: Path | None) -> None:
    """Raises InvalidSettings before any work is done for a file whose folder does not exist."""
    if path is not None and (not path.parent.is_dir() or path.is_dir()):
        raise InvalidSettings(
            f"cannot write {str(path)!r}: its folder does not exist, or it is a folder itself"
        )


def sha256(data: bytes) -> str:
    """Name of an image."""
    return hashlib.sha256(data).hexdigest()


def class_set(prompts: str | None, templates: list[str] | None, model: str) -> ClassSet:
    """The demo's class set where nothing is said and the demo model is used."""
    if prompts is None:
        if model != DEMO:
            raise EmptyPrompts("give class prompts: --prompts 'dog, cat, ...'")
        from fulcrum.demo.shipped import demo_task

        task = demo_task()
        return ClassSet(task.names, tuple(templates)) if templates else task
    names = tuple(part.strip() for part in prompts.split(","))
    if not any(names):
        raise EmptyPrompts("the class prompts are empty: give at least one, separated by commas")
    return ClassSet(names, tuple(templates) if templates else default_templates(model))


def default_templates(model: str) -> tuple[str, ...]:
    """The templates that the demo model was trained with, CLIP's plainest for others."""
    if model != DEMO:
        return DEFAULT_TEMPLATES
    from fulcrum.demo.shipped import demo_task

    return demo_task().templates


def parse_target(text: str | None, task: ClassSet) -> "Target | None":
    """`margin:a,b` and its like. Raises InvalidTarget or InvalidInput."""
    if text is None:
        return None
    kind, _, rest = text.partition(":")
    names = [n.strip() for n in rest.split(",")]
    for name in names:
        task.index(name)
    match kind, names:
        case "margin", [a, b]:
            return MarginTarget(a, b)
        case "logit", [a]:
            return LogitTarget(a)
        case "log_prob", [a]:
            return LogProbTarget(a)
        case "cosine", [a]:
            return CosineTarget(a)
    raise InvalidInput(f"target {text!r}: expected 'margin:a,b', 'logit:a', 'log_prob:a' or 'cosine:a'")


def shown_name(ref: ModelRef) -> str:
    """The model's name without a path of this machine."""
    return ref.model_name.replace("\\", "/").rpartition("/")[2] if ":" in ref.model_name else ref.model_name


def read_concepts(files: list[Path], title: str) -> "ConceptSet":
    """Concepts in Suau's layout, or from one CSV. Raises InvalidSettings, and what the files are refused for."""
    from fulcrum.domain.concept_files import read_concepts_csv, read_concepts_json

    if files[0].suffix.lower() != ".csv":
        return read_concepts_json([file.read_bytes() for file in files], title)
    if len(files) > 1:
        raise InvalidSettings(f"{len(files)} files: concepts come from one CSV, or from JSON files")
    return read_concepts_csv(read_text(files[0]), title)
