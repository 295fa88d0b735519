"""What all request bodies have in common."""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """A request body: unknown fields are errors, and so is a number in quotes.

    Write lists as `list[...]`, since strictness tells them from tuples, and a time as `Annotated[datetime,
    Strict(False)]`, since JSON has only texts for it.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
