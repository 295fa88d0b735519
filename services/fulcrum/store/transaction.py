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

    def __init__(self, make: Callable[[Connection], R]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, transaction: "Transaction", owner: type) -> R:
        made = self._make(transaction.connection)
        # Of the same name as this, which is asked only where the instance has none.
        transaction.__dict__[self._name] = made
        return made


class Transaction:
    """What `Store.read` and `Store.write` yield; useless after their block."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    users = _Lazy(Users)
    tokens = _Lazy(Tokens)
    logins = _Lazy(Logins)
    links = _Lazy(Links)
    projects = _Lazy(Projects)
    members = _Lazy(Members)
    models = _Lazy(Models)
    saes = _Lazy(Saes)
    images = _Lazy(Images)
    datasets = _Lazy(Datasets)
    dataset_versions = _Lazy(DatasetVersions)
    image_sets = _Lazy(ImageSets)
    sessions = _Lazy(Sessions)
    corrections = _Lazy(Corrections)
    concepts = _Lazy(Concepts)
    indexes = _Lazy(Indexes)
    descriptions = _Lazy(Descriptions)
    experts = _Lazy(ExpertSearches)
    results = _Lazy(Results)
    jobs = _Lazy(Jobs)
    job_tasks = _Lazy(lambda connection: JobTasks(connection, Jobs(connection)))
    job_events = _Lazy(JobEvents)
    import_contents = _Lazy(ImportContents)
    evaluations = _Lazy(Evaluations)
    looks = _Lazy(Looks)
    idempotency = _Lazy(Idempotency)
    audit = _Lazy(Audit)
