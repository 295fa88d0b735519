"""The two clients: the same resources and questions, blocking and awaiting."""

from typing import Any, Self

import httpx

from fulcrum.client.connection import Connection
from fulcrum.client.drivers import AsyncDriver, SyncDriver
from fulcrum.client.operations import Async, Side, Sync
from fulcrum.client.questions import Questions
from fulcrum.client.resources.account import Account
from fulcrum.client.resources.concepts import Concepts
from fulcrum.client.resources.corrections import Corrections
from fulcrum.client.resources.datasets import Datasets
from fulcrum.client.resources.evaluations import Evaluations
from fulcrum.client.resources.experts import ExpertSearches
from fulcrum.client.resources.image_sets import ImageSets
from fulcrum.client.resources.images import Images
from fulcrum.client.resources.jobs import Jobs
from fulcrum.client.resources.latents import Latents
from fulcrum.client.resources.models import Models
from fulcrum.client.resources.projects import Projects
from fulcrum.client.resources.results import Results
from fulcrum.client.resources.saes import Saes
from fulcrum.client.resources.sessions import Sessions
from fulcrum.client.resources.tokens import Tokens
from fulcrum.client.resources.users import Users
from fulcrum.client.retries import Retries
from fulcrum.client.wire import Wire
from fulcrum.domain.errors import InvalidSettings


class _Resources(Questions[Side], Account[Side]):
    def __init__(self, wire: Wire, driver: Any) -> None:
        super().__init__(wire, driver)
        self.images: Images[Side] = Images(wire, driver)
        self.models: Models[Side] = Models(wire, driver)
        self.saes: Saes[Side] = Saes(wire, driver)
        self.datasets: Datasets[Side] = Datasets(wire, driver)
        self.image_sets: ImageSets[Side] = ImageSets(wire, driver)
        self.sessions: Sessions[Side] = Sessions(wire, driver)
        self.corrections: Corrections[Side] = Corrections(wire, driver)
        self.evaluations: Evaluations[Side] = Evaluations(wire, driver)
        self.experts: ExpertSearches[Side] = ExpertSearches(wire, driver)
        self.jobs: Jobs[Side] = Jobs(wire, driver)
        self.concepts: Concepts[Side] = Concepts(wire, driver)
        self.latents: Latents[Side] = Latents(wire, driver)
        self.results: Results[Side] = Results(wire, driver)
        self.tokens: Tokens[Side] = Tokens(wire, driver)
        self.users: Users[Side] = Users(wire, driver)
        self.projects: Projects[Side] = Projects(wire, driver)

    @property
    def url(self) -> str:
        """The gateway that is asked."""
        return self._wire.connection.address.url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


class Client(_Resources[Sync]):
    """A gateway, for scripts and notebooks; may be shared by threads.

    `url` and `token`: None takes FULCRUM_CLIENT_URL and FULCRUM_CLIENT_TOKEN, or the file that `fulcrum up` writes.
    `login`: in place of a token, the session cookie of a browser for which a program asks; then `url` must be given.
    `timeout_s`: how long one answer may take. `retries`: further attempts after a lost connection or a busy service;
    nothing is changed twice. `project_id`: None is the asker's default project.
    Every failure is an error of `fulcrum.domain.errors`. Raises InvalidSettings where no gateway is named.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        timeout_s: float = 60.0,
        *,
        login: str | None = None,
        retries: int = 4,
        project_id: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        wire = _wire(url, token, login, timeout_s, retries, project_id)
        self._sync_driver = SyncDriver(wire.connection, timeout_s, transport)
        super().__init__(wire, self._sync_driver)

    def close(self) -> None:
        """Closes the connections."""
        self._sync_driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Resources[Async]):
    """`Client` for asyncio: the same methods, to be awaited or iterated with `async for`."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        timeout_s: float = 60.0,
        *,
        login: str | None = None,
        retries: int = 4,
        project_id: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        wire = _wire(url, token, login, timeout_s, retries, project_id)
        self._async_driver = AsyncDriver(wire.connection, timeout_s, transport)
        super().__init__(wire, self._async_driver)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._async_driver.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _wire(
    url: str | None,
    token: str | None,
    login: str | None,
    timeout_s: float,
    retries: int,
    project_id: str | None,
) -> Wire:
    if not 0 < timeout_s < float("inf"):
        raise InvalidSettings(f"timeout_s is {timeout_s}: expected a number of seconds > 0")
    if retries < 0:
        raise InvalidSettings(f"retries is {retries}: expected 0 or more")
    return Wire(Connection(url, token, login), Retries(n=retries), project_id)
