"""What an administrator can choose about the frontend, all of it as `FULCRUM_FRONTEND_*`."""

from functools import cache
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once; nothing else of the frontend reads the environment."""

    model_config = SettingsConfigDict(env_prefix="FULCRUM_FRONTEND_", frozen=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8501, ge=1, le=65535, description="Port to listen on.")
    gateway_url: str = Field(
        default="http://127.0.0.1:8080", description="The gateway, as this service reaches it."
    )
    gateway_public_url: str | None = Field(
        default=None,
        description="The gateway, as browsers reach it, for logging in; None: its port on the host under which the "
        "frontend is seen.",
    )
    max_upload_mb: int = Field(
        default=512,
        ge=1,
        le=4096,
        description="Of one file that is dropped into a page; it is held in memory meanwhile. Larger archives: fulcrum import.",
    )
    timeout_s: float = Field(default=60.0, gt=0, description="How long one answer of the gateway may take.")

    @field_validator("gateway_url", "gateway_public_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is no URL such as http://HOST:PORT")
        return value.rstrip("/")

    def public_url(self, seen: str | None) -> str:
        """The gateway for a browser that sees the frontend at this URL: the login's cookie comes to one host only."""
        if self.gateway_public_url is not None:
            return self.gateway_public_url
        own, there = urlsplit(self.gateway_url), urlsplit(seen or "")
        if not there.hostname or own.port is None:
            return self.gateway_url
        host = f"[{there.hostname}]" if ":" in there.hostname else there.hostname
        return own._replace(netloc=f"{host}:{own.port}").geturl()


@cache
def settings() -> Settings:
    """The settings of this process. Raises pydantic's ValidationError."""
    return Settings()
