"""What a job is about, by the names that people gave: ten validations in a list are told apart by nothing else."""

from collections.abc import Mapping
from itertools import islice

from fulcrum.client import Client
from fulcrum.domain.jobs import (
    DescribeConcepts,
    FindExperts,
    ImportDataset,
    IndexDataset,
    InteractCorrections,
    JobSpec,
    SuggestCorrection,
    SweepCorrection,
    TrainSae,
    ValidateCorrection,
)
from fulcrum_ui.visitor import SHORT_S, remembered

_MOST = 200  # newest of each kind whose names are fetched


def names_of(client: Client) -> Mapping[str, str]:
    """Names of the project's data sets, SAEs and corrections by their ids."""
    return remembered(("job-names",), lambda: _names(client), for_s=SHORT_S)


def _names(client: Client) -> dict[str, str]:
    names = {d.id: d.name for d in islice(client.datasets.list(), _MOST)}
    names |= {s.id: s.name for s in islice(client.saes.list(), _MOST)}
    return names | {c.id: c.name for c in islice(client.corrections.list(), _MOST)}


def subject(spec: JobSpec, names: Mapping[str, str]) -> str:
    """In a few words, "" where all of it was deleted meanwhile."""
    match spec:
        case ImportDataset() | IndexDataset():
            return names.get(spec.dataset_id, "")
        case DescribeConcepts():
            return _on(names.get(spec.sae_id, ""), names.get(spec.dataset_id, ""))
        case TrainSae():
            return _on(spec.name, names.get(spec.dataset_id, ""))
        case ValidateCorrection() | SweepCorrection():
            where = _on(names.get(spec.correction_id, ""), names.get(spec.dataset_id, ""))
            return f"{where}, {spec.split}" if where else spec.split
        case SuggestCorrection():
            wanted = ", ".join(f"{w.column} = {w.value}" for w in spec.where)
            return _on(wanted, names.get(spec.dataset_id, ""))
        case InteractCorrections():
            found = [names[v.correction_id] for v in spec.corrections if v.correction_id in names]
            return _on(", ".join(found), names.get(spec.dataset_id, ""))
        case FindExperts():
            return spec.name or names.get(spec.dataset_id or "", "")


def _on(what: str, dataset: str) -> str:
    return f"{what} on {dataset}" if what and dataset else what or dataset
