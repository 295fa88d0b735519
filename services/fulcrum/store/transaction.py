"""All repositories of one transaction."""

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

METADATA = Base.metadata  # complete here, because every module with tables is imported above


class Transaction:
    """What `Store.read` and `Store.write` yield; useless after their block."""

    def __init__(self, connection: Connection) -> None:
        self.users = Users(connection)
        self.tokens = Tokens(connection)
        self.logins = Logins(connection)
        self.links = Links(connection)
        self.projects = Projects(connection)
        self.members = Members(connection)
        self.models = Models(connection)
        self.saes = Saes(connection)
        self.images = Images(connection)
        self.datasets = Datasets(connection)
        self.dataset_versions = DatasetVersions(connection)
        self.image_sets = ImageSets(connection)
        self.sessions = Sessions(connection)
        self.corrections = Corrections(connection)
        self.concepts = Concepts(connection)
        self.indexes = Indexes(connection)
        self.descriptions = Descriptions(connection)
        self.experts = ExpertSearches(connection)
        self.results = Results(connection)
        self.jobs = Jobs(connection)
        self.job_tasks = JobTasks(connection, self.jobs)
        self.job_events = JobEvents(connection)
        self.import_contents = ImportContents(connection)
        self.evaluations = Evaluations(connection)
        self.looks = Looks(connection)
        self.idempotency = Idempotency(connection)
        self.audit = Audit(connection)
