"""What an administrator can choose about a worker, all of it as `FULCRUM_WORKER_*`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fulcrum.domain.jobs import QueueName


class Settings(BaseSettings):
    """Read once in `__main__` of the worker and of its pool; nothing else of the worker reads the environment."""

    model_config = SettingsConfigDict(env_prefix="FULCRUM_WORKER_", frozen=True, extra="ignore")

    queues: str = Field(default="gpu,cpu", description="Which work is taken: gpu, cpu, or both with a comma.")
    concurrency: int | None = Field(
        default=None, ge=1, le=256, description="Processes; None takes one for each GPU, or one."
    )
    database_url: str = Field(
        default="sqlite:///fulcrum.db",
        description="`sqlite:///PATH` or `postgresql+psycopg://USER:PASSWORD@HOST/NAME`, the gateway's.",
    )
    artifacts_url: str = Field(
        default="file:///var/lib/fulcrum/artifacts",
        description="`file:///FOLDER` or `s3://BUCKET/PREFIX`, the gateway's.",
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="`redis://...`, `rediss://...` or `unix://:PASSWORD@/PATH` that wakes workers.",
    )
    scratch_dir: Path = Field(
        default=Path("/var/lib/fulcrum/scratch"),
        description="Folder for checkpoints and what can be made again; shared by the workers of a machine.",
    )
    folders: dict[str, Path] = Field(
        default={}, description="Model folders by the name under which references may use them, as JSON."
    )
    buckets: dict[str, str] = Field(
        default={},
        description="Buckets that imports may read, by name, as JSON: `s3://BUCKET/PREFIX?endpoint_url=...`.",
    )
    activations_gib: float = Field(
        default=10.0,
        ge=0,
        description="Disk of the scratch folder for activations that trainings read again, in GiB; 0: none is kept.",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:<number>.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Of activations and weights on the device."
    )
    training_processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that train one SAE together: on as many GPUs, which a worker's process shares with the "
        "others unless FULCRUM_WORKER_CONCURRENCY leaves each its own, or on the CPU.",
    )
    lease_s: float = Field(
        default=30.0, gt=0, description="A worker without a sign of life for so long has lost its work."
    )
    beat_s: float = Field(default=1.0, gt=0, description="Between signs of life.")
    drain_s: float = Field(
        default=5.0, ge=0, description="What running work gets to finish at a stop, before it is given back."
    )
    reconcile_s: float = Field(default=5.0, gt=0, description="Between looks for forgotten work.")
    max_running_per_user: int = Field(
        default=4, ge=1, description="Stages of one user that run at the same time, over all workers."
    )
    keep_events_days: float = Field(
        default=30.0, gt=0, description="How long the log and curves of a finished job are kept."
    )
    keep_archives_days: float = Field(
        default=2.0,
        ge=0,
        description="How long an uploaded archive is kept after its last import has ended, and the images of one that "
        "failed.",
    )
    health_file: Path | None = Field(
        default=None, description="File that is touched whenever the processes answer; None: none."
    )
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="TCP port of Prometheus figures; None: not served."
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of that port.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level logged."
    )
    otlp_endpoint: str | None = Field(
        default=None, description="OpenTelemetry collector that gets the traces; none by default."
    )

    @field_validator("queues")
    @classmethod
    def _known(cls, value: str) -> str:
        names = [part.strip() for part in value.split(",")]
        if not names or not set(names) <= {"gpu", "cpu"}:
            raise ValueError(f"{value!r}: expected gpu, cpu or gpu,cpu")
        return ",".join(dict.fromkeys(names))

    @field_validator("training_processes")
    @classmethod
    def _on_gpus(cls, value: int, info: ValidationInfo) -> int:
        device = str(info.data.get("device"))
        if value > 1 and device.startswith("cuda:"):
            raise ValueError(
                f"{value} processes cannot train on the one GPU of FULCRUM_WORKER_DEVICE={device}"
            )
        return value

    @property
    def queue_names(self) -> tuple[QueueName, ...]:
        """The queues, in the order given."""
        known: tuple[QueueName, ...] = ("gpu", "cpu")
        return tuple(sorted(set(self.queues.split(",")) & set(known), key=self.queues.index))  # type: ignore[arg-type]  # checked above
