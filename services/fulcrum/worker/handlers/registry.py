"""Which handler does which kind of job."""

from fulcrum.domain.jobs import JobKind
from fulcrum.worker.datasets import dataset_opener
from fulcrum.worker.handlers.describe_concepts import DescribeConceptsHandler
from fulcrum.worker.handlers.find_experts import FindExpertsHandler
from fulcrum.worker.handlers.import_dataset import ImportDatasetHandler
from fulcrum.worker.handlers.index_dataset import IndexDatasetHandler
from fulcrum.worker.handlers.interact_corrections import InteractCorrectionsHandler
from fulcrum.worker.handlers.suggest_correction import SuggestCorrectionHandler
from fulcrum.worker.handlers.sweep_correction import SweepCorrectionHandler
from fulcrum.worker.handlers.train_sae import TrainSaeHandler
from fulcrum.worker.handlers.validate_correction import ValidateCorrectionHandler
from fulcrum.worker.indexes import open_runs
from fulcrum.worker.work import Handler

_open_dataset = dataset_opener()
_open_run = open_runs(_open_dataset)

HANDLERS: dict[JobKind, Handler] = {
    "import_dataset": ImportDatasetHandler(),
    "index_dataset": IndexDatasetHandler(_open_dataset),
    "train_sae": TrainSaeHandler(_open_dataset),
    "describe_concepts": DescribeConceptsHandler(_open_dataset),
    "validate_correction": ValidateCorrectionHandler(_open_run),
    "sweep_correction": SweepCorrectionHandler(_open_run),
    "suggest_correction": SuggestCorrectionHandler(_open_run),
    "interact_corrections": InteractCorrectionsHandler(_open_run),
    "find_experts": FindExpertsHandler(_open_dataset),
}
