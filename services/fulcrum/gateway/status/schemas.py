"""What the probes answer."""

from pydantic import BaseModel


class Health(BaseModel):
    """The process is alive."""

    status: str


class Readiness(BaseModel):
    """Each part that an answer needs: `ok`, or what is wrong with it."""

    ready: bool
    checks: dict[str, str]
