"""The weights that come with the package, as ordinary references: nothing else knows that they are the demo's."""

from pathlib import Path

from fulcrum.demo.world import TEMPLATES
from fulcrum.demo.world_objects import CLASS_NAMES
from fulcrum.domain.models import ModelRef
from fulcrum.domain.tasks import ClassSet

WEIGHTS = Path(__file__).parent / "weights"


def demo_model() -> ModelRef:
    """The tiny CLIP."""
    return ModelRef(f"local-dir:{WEIGHTS / 'clip'}")


def demo_sae() -> str:
    """Folder of its SAE."""
    return str(WEIGHTS / "sae")


FOLDER_NAME = "demo"
"""Under which the services know WEIGHTS (FULCRUM_INFERENCE_FOLDERS)."""


WORLD_NAME = "demo-world"
"""Under which workers know the folder of drawn worlds (FULCRUM_WORKER_FOLDERS)."""


def served_model() -> ModelRef:
    """The tiny CLIP as a request names it: never by a path."""
    return ModelRef(f"folder:{FOLDER_NAME}/clip")


def served_sae() -> str:
    """Its SAE as a request names it."""
    return f"folder:{FOLDER_NAME}/sae"


def demo_task() -> ClassSet:
    """The objects of the world, under the templates that the model was trained with."""
    return ClassSet(tuple(CLASS_NAMES), tuple(TEMPLATES))
