"""Things of the running platform by what people call them."""

from typing import TYPE_CHECKING

from fulcrum.domain.errors import UnknownDataset

if TYPE_CHECKING:
    from fulcrum.client import Client
    from fulcrum.domain.records import DatasetRecord


def dataset_of(client: "Client", wanted: str) -> "DatasetRecord":
    """The data set of this id or name. Raises UnknownDataset."""
    if wanted.startswith("dat_"):
        return client.datasets.get(wanted)
    known = list(client.datasets.list())
    found = [d for d in known if d.name == wanted]
    if not found:
        raise UnknownDataset(f"no data set {wanted!r} here: there are {sorted(d.name for d in known)}")
    return found[0]
