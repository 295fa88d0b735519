"""Who asks."""

from fulcrum.client.operations import Bound, Side, operation
from fulcrum.client.resources.naming import given
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.records import User


class Account(Bound[Side]):
    """On the client itself."""

    @operation
    def me(self) -> Flow[User]:
        """The user whose token this is. Raises Unauthenticated."""
        return (yield from self._wire.ask(User, "GET", path("me")))

    @operation
    def change_password(self, new_password: str, current_password: str | None = None) -> Flow[None]:
        """Sets one's password (`current_password` where there is one); one's browser sessions end, tokens stay."""
        body = given(new_password=new_password, current_password=current_password)
        yield from self._wire.do("PUT", path("me", "password"), json=body)
