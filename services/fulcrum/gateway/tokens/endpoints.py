"""API tokens of the asker."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from fulcrum.domain.records import ApiToken
from fulcrum.gateway.deps import AskerDep, PageDep, PageOf, StoreDep, answer, answer_page
from fulcrum.gateway.tokens import service
from fulcrum.gateway.tokens.schemas import NewToken, TokenBody

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])


@router.post("", status_code=201, response_model=NewToken)
def create_token(body: TokenBody, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """Makes a token for programs. Its secret is in this answer only."""
    record, text = service.create(store, asker, body.name, body.scopes, body.expires_at)
    return answer({"record": record, "token": text}, 201)


@router.get("", response_model=PageOf[ApiToken])
def list_tokens(asker: AskerDep, store: StoreDep, page: PageDep) -> JSONResponse:
    """The asker's tokens, newest first, without their secrets."""
    return answer_page(service.list_own(store, asker, page))


@router.delete("/{token_id}", status_code=204, response_class=Response)
def revoke_token(token_id: str, asker: AskerDep, store: StoreDep) -> Response:
    """Revokes a token: whoever uses it is refused from now on."""
    service.revoke(store, asker, token_id)
    return Response(status_code=204)
