"""Whatever goes wrong below becomes an answer in the one shape; outside of it stand request ids and CORS."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fulcrum.gateway.errors import as_domain_error, failure_response, request_id_of


class AnswerFailures:
    """Catches what the other layers and the routes raise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; raises only what came after the answer had begun."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noticing(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noticing)
        except Exception as error:
            shown = as_domain_error(error, request_id_of(scope))
            if (
                begun
            ):  # too late for another answer: the server cuts the connection, so that the caller notices
                raise
            await failure_response(scope, shown)(scope, receive, noticing)
