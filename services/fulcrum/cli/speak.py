"""`fulcrum experts speak`: a causal model of this machine, before and after its experts are steered."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, err, out

if TYPE_CHECKING:
    from fulcrum.science.responses.speaking import Steering


def speak(
    model: Annotated[
        str,
        typer.Argument(help="A causal model of transformers: a folder, or a hub reference on this machine."),
    ],
    files: Annotated[
        list[Path],
        typer.Argument(help="Concepts: JSON files in Suau's layout, or one CSV.", show_default=False),
    ],
    concept: Annotated[str, typer.Option("--concept", "-c", help="Which of them.")],
    word: Annotated[
        list[str] | None,
        typer.Option("--word", help="Whose probability is told; the concept's name by default. Repeatable."),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What the model goes on from. Repeatable.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="set (to the median with the concept), damp (AurA), or mean, gaussian, linear transport.",
        ),
    ] = "set",
    k: Annotated[int, typer.Option("-k", min=1, help="Experts: the best by AP.")] = 50,
    strength: Annotated[
        float, typer.Option("--strength", min=0, help="How far: 0 not at all, 1 all the way.")
    ] = 1.0,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="mlp, attention, or a name with *. Repeatable; all by default."),
    ] = None,
    n_new: Annotated[int, typer.Option("--new", min=1, help="Tokens that are said.")] = 20,
    n_random: Annotated[int, typer.Option("--random", min=1, help="Sets of other units, as control.")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the control and of what is said.")] = 0,
    json: options.Json = False,
) -> None:
    """What a causal model on this machine says with a concept's experts steered, the price, and random units."""
    from dataclasses import asdict

    from fulcrum.domain.errors import InvalidSettings
    from fulcrum.science.responses import speaking

    way = next((w for w in speaking.WAYS if w == by), None)
    if way is None:
        raise InvalidSettings(f"--by {by!r}: expected one of {', '.join(speaking.WAYS)}")
    concepts = options.read_concepts(files, files[0].stem)
    chosen = next((c for c in concepts.concepts if c.name == concept), None)
    if chosen is None:
        raise InvalidSettings(
            f"no concept {concept[:80]!r}: there is {[c.name for c in concepts.concepts][:20]}"
        )
    positives, negatives = (
        [concepts.sentences[n] for n in numbers] for numbers in (chosen.positives, chosen.negatives)
    )
    speaker = speaking.load_speaker(model)
    maps, least_ap = speaking.experts_of(
        speaker, positives, negatives, way, k=k, layers=layer or (), strength=strength
    )

    def advance(done: int, of: int) -> None:
        if not json:
            err.print(f"other units: {done} of {of}", highlight=False)

    prompts = prompt or ["There was a", "I saw the", "We talked about"]
    found = speaking.steer_speech(
        speaker, maps, least_ap, word or [concept], prompts, negatives,
        n_new=n_new, n_random=n_random, seed=seed, advance=advance,
    )  # fmt: skip
    if json:
        emit_json({"concept": concept, "by": way, "k": k, "strength": strength, **asdict(found)})
        return
    _print_speech(found)


def _print_speech(found: "Steering") -> None:
    from rich.table import Table

    layers = ", ".join(f"{name} {n}" for name, n in found.n_experts.items())
    out.print(f"experts: AP at least {found.least_ap:.3f}; {layers}", highlight=False, markup=False)
    table = Table(header_style="bold")
    for heading in ("", "before", "after", "others, mean", "highest"):
        table.add_column(heading, justify="left" if not heading else "right")
    for what, before, after, control in (
        ("next word", found.before, found.after, found.random_after),
        ("perplexity", found.perplexity_before, found.perplexity_after, found.random_perplexity),
    ):  # fmt: skip
        mean = sum(control) / len(control)
        table.add_row(what, f"{before:.4g}", f"{after:.4g}", f"{mean:.4g}", f"{max(control):.4g}")
    out.print(table)
    out.print(
        f"p = {found.p_value:.3f} that other units move the word as far, from {len(found.random_after)} sets",
        highlight=False,
    )
    for speech in found.speeches:
        out.print(f"{speech.prompt}", highlight=False, markup=False, style="bold")
        out.print(f"  before: {speech.before}", highlight=False, markup=False)
        out.print(f"  after:  {speech.after}", highlight=False, markup=False)
