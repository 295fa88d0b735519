"""What a person can choose about the platform on their machine: options of `fulcrum up`, or `FULCRUM_LOCAL_*`."""

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fulcrum.domain.errors import InvalidSettings


class Settings(BaseSettings):
    """Read once by the command; its options come before the environment."""

    model_config = SettingsConfigDict(
        env_prefix="FULCRUM_LOCAL_", frozen=True, extra="ignore", populate_by_name=True
    )

    host: str = Field(
        default="127.0.0.1",
        description="Address of the gateway. Loopback unless told: others could reach it.",
    )
    port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port of the gateway; None takes the first free one from 8080 on.",
    )
    frontend_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port of the web interface; None takes the first free one from 8501 on.",
    )
    data_dir: Path = Field(
        default=Path("~/.fulcrum/data"),
        description="The folder that holds everything: records, artifacts, logs.",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:<number>.")
    redis_url: SecretStr | None = Field(
        default=None,
        validation_alias="FULCRUM_REDIS_URL",
        description="A running Redis or Valkey >= 6.2 to use instead of an own one.",
    )
    client_file: Path = Field(
        default=Path("~/.fulcrum/client.json"),
        validation_alias="FULCRUM_CLIENT_FILE",
        description="Where the address and a token are written for `fulcrum.client`.",
    )


def read_settings(**given: Any) -> Settings:
    """The settings; what is given and not None comes before the environment. Raises InvalidSettings naming each."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise InvalidSettings(f"settings of FULCRUM_LOCAL_*: {'; '.join(wrong)}") from error
