"""All repositories of one transaction."""

from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy import Connection

from fulcrum.store.audit import Audit
from fulcrum.store.columns import Base
from fulcrum.store.concepts import Concepts
from fulcrum.store.corrections import Corrections
from fulcrum.store.evaluations import Evaluations, Looks
from fulcrum.store.experts import ExpertSearches
from fulcrum.store.idempotency import Idempotency
from fulcrum.store.image_sets import ImageSets
from fulcrum.store.import_contents import ImportContents
from fulcrum.store.indexes import Descriptions, Indexes
from fulcrum.store.job_events import JobEvents
from fulcrum.store.job_tasks import JobTasks
from fulcrum.store.jobs import Jobs
from fulcrum.store.people import Links, Logins, Tokens, Users
from fulcrum.store.projects import Members, Projects
from fulcrum.store.registry import Datasets, DatasetVersions, Images, Models, Saes
from fulcrum.store.results import Results
from fulcrum.store.sessions import Sessions

R = TypeVar("R")

METADATA = Base.metadata  # complete here, because every module with tables is imported above


class _Lazy(Generic[R]):
    """A repository that a transaction makes when it is first asked for: a request needs two or three of them."""

    def __init__(self, make: "Callable[[Transaction], R]") -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, transaction: "Transaction", owner: type) -> R:
        made = self._make(transaction)
        # Of the same name as this, which is asked only where the instance has none.
        transaction.__dict__[self._name] = made
        return made


def _of(repository: Callable[[Connection], R]) -> _Lazy[R]:
    return _Lazy(lambda transaction: repository(transaction.connection))


class Transaction:
    """What `Store.read` and `Store.write` yield; useless after their block."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    users = _of(Users)
    tokens = _of(Tokens)
    logins = _of(Logins)
    links = _of(Links)
    projects = _of(Projects)
    members = _of(Members)
    models = _of(Models)
    saes = _of(Saes)
    images = _of(Images)
    datasets = _of(Datasets)
    dataset_versions = _of(DatasetVersions)
    image_sets = _of(ImageSets)
    sessions = _of(Sessions)
    corrections = _of(Corrections)
    concepts = _of(Concepts)
    indexes = _of(Indexes)
    descriptions = _of(Descriptions)
    experts = _of(ExpertSearches)
    results = _of(Results)
    jobs = _of(Jobs)
    job_tasks = _Lazy(
        lambda transaction: JobTasks(transaction.connection, transaction.jobs)
    )  # jobs count what is ready
    job_events = _of(JobEvents)
    import_contents = _of(ImportContents)
    evaluations = _of(Evaluations)
    looks = _of(Looks)
    idempotency = _of(Idempotency)
    audit = _of(Audit)
