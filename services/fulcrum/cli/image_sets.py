"""`fulcrum image-sets`: tags, slices and invariant lists of images, on the running platform, through the SDK."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fulcrum.cli import options
from fulcrum.cli.naming import dataset_of
from fulcrum.cli.output import emit_json, out

if TYPE_CHECKING:
    from fulcrum.domain.image_sets import ImageSetPurpose
    from fulcrum.domain.records import ImageSetRecord

app = typer.Typer(
    help="Images kept under a name: slices to judge, and lists that must keep their answers.",
    no_args_is_help=True,
)

SetId = Annotated[str, typer.Argument(help="Id of the set, ims_...")]


@app.command("list")
def list_sets(
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Id or name of a data set: its sets only.")
    ] = None,
    purpose: Annotated[str | None, typer.Option("--purpose", help="Only slice, or only invariant.")] = None,
    json: options.Json = False,
) -> None:
    """The sets of your project, newest first."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        of = None if dataset is None else dataset_of(client, dataset)
        found = list(client.image_sets.list(dataset=of, purpose=purpose))  # type: ignore[arg-type]  # the gateway checks
    if json:
        emit_json({"image_sets": to_json(found)})
        return
    for record in found:
        out.print(_line(record), highlight=False, markup=False, soft_wrap=True)


@app.command("show")
def show(image_set: SetId, json: options.Json = False) -> None:
    """One set with the ids of its images."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        record, ids = client.image_sets.get(image_set), list(client.image_sets.images(image_set))
    if json:
        emit_json({"image_set": to_json(record), "image_ids": ids})
        return
    out.print(_line(record), highlight=False, markup=False, soft_wrap=True)
    for name in ids:
        out.print(f"   {name}", highlight=False, markup=False, soft_wrap=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Name for the data set; of a slice it is a tag.")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Id or name of the data set.")],
    image: Annotated[list[str] | None, typer.Option("--image", help="Id of an image. Repeatable.")] = None,
    file: Annotated[
        Path | None, typer.Option("--from", help="A text file with an id a line.", show_default=False)
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option("--evaluation", help="Id of an evaluation: images of its flip board.")
    ] = None,
    outcome: Annotated[
        str | None, typer.Option("--outcome", help="Of the flip board only broken, fixed, moved, ...")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option("--where", help="Of the flip board only column=value. Repeatable.")
    ] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Of the flip board only images whose answer is another one.")
    ] = False,
    invariant: Annotated[
        bool, typer.Option("--invariant", help="A list that must keep its answers, instead of a slice.")
    ] = False,
    note: Annotated[str, typer.Option("--note", help="Why these.")] = "",
    json: options.Json = False,
) -> None:
    """Keep images under a name: named one by one, from a file, or from a flip board."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json
    from fulcrum.domain.errors import InvalidSettings
    from fulcrum.domain.evaluations import FlipFilter

    if evaluation is None and (outcome or where or changed):
        raise InvalidSettings(
            "--outcome, --where and --changed choose among the images of an --evaluation: name one"
        )
    lines = [] if file is None else options.read_text(file).splitlines()
    ids = [*(image or ()), *(line for line in lines if line)]
    flips = None
    if evaluation is not None:
        flips = FlipFilter(evaluation, outcome, tuple(where or ()), changed_only=changed)  # type: ignore[arg-type]  # the gateway checks
    with Client() as client:
        purpose: ImageSetPurpose = "invariant" if invariant else "slice"
        record = client.image_sets.create(
            dataset_of(client, dataset), name, ids, purpose=purpose, note=note, flips=flips
        )
    if json:
        emit_json(to_json(record))
        return
    out.print(_line(record), highlight=False, markup=False, soft_wrap=True)


@app.command("delete")
def delete(image_set: SetId, json: options.Json = False) -> None:
    """Take a set out of the project; its images, and evaluations that judged it, stay."""
    from fulcrum.client import Client

    with Client() as client:
        client.image_sets.delete(image_set)
    if json:
        emit_json({"deleted": image_set})
        return
    out.print(
        f"{image_set}  deleted; `fulcrum image-sets restore {image_set}` undoes it",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command("restore")
def restore(image_set: SetId, json: options.Json = False) -> None:
    """Bring a deleted set back under its name."""
    from fulcrum.client import Client
    from fulcrum.domain.codec import to_json

    with Client() as client:
        record = client.image_sets.restore(image_set)
    if json:
        emit_json(to_json(record))
        return
    out.print(_line(record), highlight=False, markup=False, soft_wrap=True)


def _line(record: "ImageSetRecord") -> str:
    splits = ", ".join(f"{split or 'no split'} {n}" for split, n in record.n_by_split.items())
    return f"{record.id}  {record.purpose:<9} {record.n_images:>6} images ({splits})  {record.name}"
