"""`fulcrum concepts`: what latents are called, and what colleagues think of it, on the running platform."""

from typing import TYPE_CHECKING, Annotated

import typer

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, out

if TYPE_CHECKING:
    from fulcrum.domain.labels import EarlierLabel
    from fulcrum.domain.records import ConceptRecord

app = typer.Typer(help="Names of latents and their review, on the running platform.", no_args_is_help=True)

SaeId = Annotated[str, typer.Argument(help="Id of the SAE, sae_...")]
Latent = Annotated[int, typer.Argument(min=0, help="Index of the latent.")]


@app.command("list")
def list_labels(
    sae: SaeId,
    words: Annotated[
        str | None, typer.Option("--words", help="Only with this in label or note.", show_default=False)
    ] = None,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only labels that wait for somebody to review them.")
    ] = False,
    n: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")] = 20,
    json: options.Json = False,
) -> None:
    """The newest labels of an SAE."""
    from itertools import islice

    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        listed = client.concepts.list(sae, words=words, review="proposed" if waiting else None)
        found = list(islice(listed, n))
    if json:
        emit_json({"concepts": to_json(found)})
        return
    for concept in found:
        out.print(_line(concept), highlight=False, markup=False)


@app.command("show")
def show(sae: SaeId, latent: Latent, json: options.Json = False) -> None:
    """The label of one latent and all that it had before."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        found = client.concepts.get(sae, latent)
    if json:
        emit_json(to_json(found))
        return
    _print(found)


@app.command("name")
def name(
    sae: SaeId,
    latent: Latent,
    label: Annotated[str, typer.Argument(help="The name; empty takes it back.")],
    note: Annotated[str, typer.Option("--note", help="Why this name.")] = "",
    json: options.Json = False,
) -> None:
    """Propose a name for a latent; a reviewer confirms or rejects it."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        found = client.concepts.put(sae, latent, label, note=note)
    if json:
        emit_json(to_json(found))
        return
    _print(found)


@app.command("confirm")
def confirm(
    sae: SaeId,
    latent: Latent,
    label: Annotated[str, typer.Argument(help="The label that you mean, so that no newer one is confirmed.")],
    note: Annotated[str, typer.Option("--note", help="Why.")] = "",
    json: options.Json = False,
) -> None:
    """Confirm the label that a colleague proposed."""
    _review(sae, latent, label, True, note, json)


@app.command("reject")
def reject(
    sae: SaeId,
    latent: Latent,
    label: Annotated[str, typer.Argument(help="The label that you mean, so that no newer one is rejected.")],
    note: Annotated[str, typer.Option("--note", help="Why.")] = "",
    json: options.Json = False,
) -> None:
    """Reject the label that a colleague proposed; the one before it comes back."""
    _review(sae, latent, label, False, note, json)


def _review(sae: str, latent: int, label: str, stays: bool, note: str, json: bool) -> None:
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json
    from fulcrum.domain.errors import StaleVersion

    with Client() as client:
        seen = client.concepts.get(sae, latent)
        if seen.label != label:
            raise StaleVersion(f"latent {latent} is labelled {seen.label!r}, not {label!r}: look at it again")
        found = client.concepts.review(
            sae, latent, "confirm" if stays else "reject", note=note, expected=seen
        )
    if json:
        emit_json(to_json(found))
        return
    _print(found)


def _print(concept: "ConceptRecord") -> None:
    out.print(_line(concept), highlight=False, markup=False)
    for earlier in concept.history:
        out.print(f"  before: {_words(earlier)}", highlight=False, markup=False)


def _line(concept: "ConceptRecord") -> str:
    return f"{concept.latent:>6}  {_words(concept)}"


def _words(label: "ConceptRecord | EarlierLabel") -> str:
    text = label.label or "(no label)"
    if label.label_source == "auto":
        return f"{text}  found by a program" if label.label else text
    said = f"  {label.review or 'written'} (by {label.created_by}, {label.created_at:%Y-%m-%d}"
    if label.reviewed_by is not None:
        said += f"; reviewed by {label.reviewed_by}"
    notes = "".join(f"  {note!r}" for note in (label.note, label.review_note) if note)
    return f"{text}{said}){notes}"
