"""The recipe of the shipped demo weights: paint, train the CLIP, train the SAE, measure.

`python -m fulcrum.demo.recipe --out FOLDER --minutes 40` writes `clip/`, `sae/` and `numbers.json`.
"""

import argparse
import dataclasses
import json
import logging
import os
import time
from pathlib import Path

import torch

from fulcrum.demo.recipe_clip import ClipTraining, demo_tokenizer, load_clip, train_clip
from fulcrum.demo.recipe_measure import class_embeddings, held_out, zero_shot
from fulcrum.demo.recipe_pool import Mixture, make_pool
from fulcrum.demo.recipe_sae import SaeTraining, demo_model, probe_correction, train_demo_sae

# The held-out scenes of the recipe's own numbers; no user of `write_demo_dataset` should take this seed.
MEASURE_SEED = 20_011


def main(arguments: list[str] | None = None) -> None:
    """Run the recipe from the command line."""
    parser = argparse.ArgumentParser(prog="python -m fulcrum.demo.recipe", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder that receives clip/, sae/, numbers.json"
    )
    parser.add_argument("--minutes", type=float, default=ClipTraining.minutes, help="wall clock for the CLIP")
    parser.add_argument("--init", type=Path, help="continue from this CLIP directory")
    parser.add_argument(
        "--sae-only", action="store_true", help="keep the CLIP in OUT/clip, train the SAE anew"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    clip_folder, sae_folder = options.out / "clip", options.out / "sae"
    mixture = Mixture()
    if not options.sae_only:
        training = ClipTraining(minutes=options.minutes, seed=options.seed)
        say(f"painting {training.n_pool} pictures")
        pool = make_pool(training.n_pool, mixture, options.seed)
        train_clip(clip_folder, pool, mixture, training, say, options.init)
    say("training the SAE")
    loaded = demo_model(clip_folder)
    sae = train_demo_sae(loaded, SaeTraining(seed=options.seed), sae_folder, say)
    say("measuring")
    logging.disable(logging.WARNING)
    model, tokenizer = load_clip(clip_folder), demo_tokenizer(clip_folder)
    confirm = held_out("confirm", 600, 240, MEASURE_SEED)
    shown = zero_shot(model, tokenizer, confirm)
    probe = probe_correction(
        loaded, sae, class_embeddings(model, tokenizer), held_out("discover", 300, 0, MEASURE_SEED), confirm
    )
    numbers = {
        "zero_shot": dataclasses.asdict(shown),
        "correction": dataclasses.asdict(probe),
        "hook_point": sae.config.hook_point,
        "torch": torch.__version__,
        "n_cores": os.cpu_count(),
    }
    (options.out / "numbers.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    say(json.dumps(numbers, indent=2))


def say(line: str) -> None:
    """Print a line with the time, at once: the recipe is run in the background."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    main()
