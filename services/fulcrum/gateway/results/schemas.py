"""Records of `/v1/results`."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from fulcrum.gateway.result_schemas import Provenance
from fulcrum.gateway.schemas import Shown

ResultKind = Literal["prediction", "attribution", "effect", "dose_response", "suggestions"]


class ResultRecord(Shown):
    """An answer as it was given, with what was asked and how it came about; never changed."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    kind: ResultKind = Field(description="What was asked for.")
    key: str = Field(
        description="Hash of question and digests: the same key is the same question of the same model."
    )
    request: dict[str, Any] = Field(description="The question.")
    response: dict[str, Any] = Field(description="The answer, under `value`.")
    provenance: Provenance = Field(description="How the answer came about.")
    created_by: str = Field(description="Id of the user who asked.")
    created_at: datetime = Field(description="When it was answered.")
    image_id: str | None = Field(None, description="Image that was asked about, where it was one.")
