"""What an administrator can choose about the inference service, all of it as `FULCRUM_INFERENCE_*`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_MIB = 1 << 20
_GIB = 1 << 30


class Settings(BaseSettings):
    """Read once in `__main__`; nothing else of the service reads the environment."""

    model_config = SettingsConfigDict(env_prefix="FULCRUM_INFERENCE_", frozen=True, extra="ignore")

    address: str = Field(
        default="127.0.0.1:50051",
        description="`HOST:PORT` (port 0 takes a free one) or `unix:/PATH` to listen on. Beyond loopback only with "
        "`token` or `tls_client_ca`.",
    )
    token: SecretStr | None = Field(
        default=None, description="Internal token; callers send it as `authorization: Bearer TOKEN`."
    )
    tls_cert: Path | None = Field(
        default=None, description="Certificate (PEM); with `tls_key` it turns TLS on."
    )
    tls_key: Path | None = Field(default=None, description="Key (PEM) of that certificate.")
    tls_client_ca: Path | None = Field(
        default=None,
        description="Authority (PEM) that must have signed the caller's certificate: mutual TLS.",
    )

    device: str = Field(
        default="auto", description="`cpu`, `cuda`, `cuda:N`, or `auto`: a GPU where there is one."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Of weights and activations; stands in every answer."
    )
    threads: int | None = Field(
        default=None, gt=0, description="CPU threads of one forward; None leaves the choice to PyTorch."
    )
    folders: dict[str, Path] = Field(
        default_factory=dict,
        description='Folders with models and SAEs as JSON, `{"lab": "/srv/models"}`: callers say `folder:lab/SUB` '
        "and can name nothing else on this machine.",
    )
    artifacts_url: str | None = Field(
        default=None,
        description="`file:///FOLDER` or `s3://BUCKET/PREFIX` of uploaded images and SAEs; without it only inline "
        "images and `folder:` SAEs are known.",
    )
    cache_dir: Path | None = Field(
        default=None, description="Where fetched SAEs are kept; None: a temporary folder, removed at the end."
    )
    canary_model: str | None = Field(
        default=None,
        description="Model loaded at the start and run by the health check, such as `folder:lab/clip` or "
        "`ViT-B-32/openai` (name/tag). None: the check runs the model that was used last.",
    )

    memory_budget_bytes: int = Field(
        default=8 * _GIB,
        gt=0,
        description="Of models and SAEs kept loaded; the least recently used go first.",
    )
    prefix_budget_bytes: int = Field(
        default=1 * _GIB,
        ge=0,
        description="Of activations kept, so that questions about one image run its prefix once; their latents take "
        "up to a quarter of it beside.",
    )
    max_queue_bytes: int = Field(
        default=1 * _GIB,
        gt=0,
        description="Of activations waiting for the device; beyond it callers are told to retry.",
    )
    max_batch_rows: int | None = Field(
        default=None,
        gt=0,
        description="Images or edited copies in one forward at most; None: what suits the device.",
    )
    max_concurrent_rpcs: int = Field(
        default=256,
        gt=0,
        description="Calls in work at once; one more is told to retry. Each holds a thread.",
    )
    max_message_bytes: int = Field(default=64 * _MIB, gt=0, description="Largest request and largest answer.")
    max_image_bytes: int = Field(default=32 * _MIB, gt=0, description="Largest encoded image.")
    max_call_s: float = Field(
        default=600.0, gt=0, description="Time limit of a call whose caller names none, or a longer one."
    )

    drain_s: float = Field(
        default=30.0, ge=0, description="After SIGTERM running calls get this long to finish."
    )
    canary_every_s: float = Field(default=15.0, gt=0, description="Between two checks of health.")
    canary_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="A check that takes longer has failed. Loading the canary model is not in it.",
    )
    stall_s: float = Field(
        default=30.0, gt=0, description="Work waits and nothing progresses for this long: not healthy."
    )

    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="TCP port of Prometheus figures under /metrics; None: not served.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of that port.")
    otlp_endpoint: str | None = Field(
        default=None, description="OpenTelemetry collector that gets the traces."
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING, ERROR or CRITICAL.")
