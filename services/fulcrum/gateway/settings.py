"""What an administrator can choose about the gateway, all of it as `FULCRUM_GATEWAY_*`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_MIB = 1 << 20


class Settings(BaseSettings):
    """Read once in `__main__`; nothing else of the gateway reads the environment."""

    model_config = SettingsConfigDict(env_prefix="FULCRUM_GATEWAY_", frozen=True, extra="ignore")

    host: str = Field(
        default="127.0.0.1", description="Address to listen on; loopback unless told otherwise."
    )
    port: int = Field(default=8080, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    database_url: str = Field(
        default="sqlite:///fulcrum.db",
        description="`sqlite:///PATH` or `postgresql+psycopg://USER:PASSWORD@HOST/NAME`.",
    )
    artifacts_url: str = Field(
        default="file:///var/lib/fulcrum/artifacts", description="`file:///FOLDER` or `s3://BUCKET/PREFIX`."
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="`redis://...`, `rediss://...` or `unix://:PASSWORD@/PATH` of rate limits and job events.",
    )
    inference_address: str = Field(
        default="127.0.0.1:50051",
        description="`HOST:PORT` or `unix:/PATH` of the inference service; several, separated by commas, share work.",
    )
    inference_token: SecretStr | None = Field(
        default=None, description="Internal token of the inference service."
    )
    inference_tls_ca: Path | None = Field(
        default=None,
        description="PEM file with the authority that signed the inference service; turns TLS on.",
    )
    inference_tls_cert: Path | None = Field(default=None, description="Own certificate (PEM) for mutual TLS.")
    inference_tls_key: Path | None = Field(default=None, description="Key (PEM) of that certificate.")
    inference_timeout_s: float = Field(
        default=60.0, gt=0, description="How long one question to inference may take."
    )
    public_url: str | None = Field(
        default=None,
        description="URL under which browsers reach the gateway, for login links and the check of where a request "
        "comes from; without it the Host header counts.",
    )
    frontend_url: str | None = Field(
        default=None,
        description="URL under which browsers reach the frontend: after logging in one goes there. Its host must be "
        "the gateway's, so that the login's cookie comes to both.",
    )
    cors_origins: tuple[str, ...] = Field(
        default=(), description="Origins whose pages may call the API with cookies; none by default."
    )
    cookie_secure: bool = Field(
        default=False,
        description="Send the session cookie over HTTPS only; always so with a public_url of https.",
    )
    trusted_proxies: str = Field(
        default="", description="Addresses, separated by commas, whose X-Forwarded-For is believed."
    )
    session_hours: float = Field(default=12.0, gt=0, le=24 * 90, description="Life of a login in a browser.")
    max_body_bytes: int = Field(default=4 * _MIB, gt=0, description="Largest JSON body.")
    max_upload_bytes: int = Field(default=32 * _MIB, gt=0, description="Largest image.")
    max_weights_bytes: int = Field(
        default=8192 * _MIB, gt=0, description="Largest SAE, configuration and weights."
    )
    max_archive_bytes: int = Field(default=64 << 30, gt=0, description="Largest archive of a data set.")
    project_quota_bytes: int | None = Field(
        default=None, gt=0, description="What the data sets of a project may take together; None: no limit."
    )
    requests_per_minute: int = Field(default=1200, gt=0, description="Of one user, over all their tokens.")
    request_burst: int = Field(
        default=200, gt=0, description="Requests that may come at once before that counts."
    )
    logins_per_minute: int = Field(
        default=10, gt=0, description="Attempts to log in, of one address and for one name; also their burst."
    )
    max_unfinished_jobs: int = Field(default=50, gt=0, description="Jobs of one user that are not finished.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level logged."
    )
    otlp_endpoint: str | None = Field(
        default=None, description="OpenTelemetry collector for traces; none by default."
    )
