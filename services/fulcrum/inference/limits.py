"""How much one request may ask for: a line of text must not cost the service its memory or its day."""

from fulcrum.domain.errors import InvalidSettings, PayloadTooLarge
from fulcrum.domain.tasks import ClassSet
from fulcrum.rpc import requests

MAX_IMAGES = 1000
MAX_PROMPTS = 100_000  # ImageNet's 1000 classes under CLIP's 80 templates
MAX_LATENTS = 1000
MAX_GAINS = 256
MAX_STEPS = 1024
MAX_CONTROLS = 1024
MAX_SUGGESTED_LATENTS = 16


def check(request: object) -> None:
    """Raises PayloadTooLarge or InvalidSettings, naming what was asked for and what is allowed."""
    match request:
        case requests.EncodeImages():
            _at_most("images", len(request.images), MAX_IMAGES)
        case requests.EncodeTexts():
            _at_most("texts", len(request.texts), MAX_PROMPTS)
        case requests.Predict():
            _at_most("images", len(request.images), MAX_IMAGES)
            _check_task(request.task)
        case requests.PredictSteered():
            _at_most("images", len(request.images), MAX_IMAGES)
            _at_most("edits", len(request.correction.edits), MAX_LATENTS)
            _check_task(request.task)
        case requests.Attribute():
            _within("n_latents", request.n_latents, 1, MAX_LATENTS)
            _within("n_steps", request.n_steps, 1, MAX_STEPS)
            _check_task(request.task)
        case requests.Steer():
            _at_most("edits", len(request.correction.edits), MAX_LATENTS)
            _within("n_controls", request.n_controls, 0, MAX_CONTROLS)
            _check_task(request.task)
        case requests.Sweep():
            _at_most("latents", len(request.latents), MAX_LATENTS)
            _at_most("gains", len(request.gains), MAX_GAINS)
            _check_task(request.task)
        case requests.Suggest():
            _within("max_latents", request.max_latents, 1, MAX_SUGGESTED_LATENTS)
            _check_task(request.task)
        case requests.SessionOpening():
            _within("n_controls", request.n_controls, 0, MAX_CONTROLS)
            _check_task(request.task)
        case requests.SessionMove():
            _at_most("edits", len(request.correction.edits), MAX_LATENTS)


def _check_task(task: ClassSet) -> None:
    _at_most("prompts (classes times templates)", len(task.names) * len(task.templates), MAX_PROMPTS)


def _at_most(what: str, asked: int, allowed: int) -> None:
    if asked > allowed:
        raise PayloadTooLarge(f"{what}: {asked} in one request, at most {allowed} are allowed")


def _within(what: str, asked: int, least: int, most: int) -> None:
    if asked < least:
        raise InvalidSettings(f"{what} is {asked}: it must be >= {least}")
    _at_most(what, asked, most)
