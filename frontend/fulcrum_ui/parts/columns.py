"""What a data set's images can be told apart by."""

from fulcrum.client import Client
from fulcrum.domain.datasets import Facets
from fulcrum.domain.records import DatasetRecord
from fulcrum_ui.visitor import remembered


def facets_of(client: Client, dataset: DatasetRecord) -> Facets:
    """Counts of all values; the same content is counted once in a visit."""
    return remembered(
        ("samples", "facets", dataset.id, dataset.digest), lambda: client.datasets.facets(dataset)
    )


def columns_of(client: Client, dataset: DatasetRecord) -> dict[str, list[str]]:
    """Groups and the label that take several values. Named without the manifest's prefix, as questions name them."""
    facets = facets_of(client, dataset)
    return {
        f.column.removeprefix("group_"): [v.value for v in f.values if v.value]
        for f in (*facets.groups, facets.label)
        if f.n_values > 1
    }
