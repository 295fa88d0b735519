"""What has to be said twice is compared: errors at the borders, settings and their example, stubs, OpenAPI."""

import re
from typing import get_args

from tests.architecture.test_completeness import MODULES, ROOT, all_errors, run_without

HEAVY = ["torch", "open_clip", "timm", "torchvision", "scipy", "sklearn", "statsmodels", "pyarrow"]


def test_the_gateway_the_store_and_the_contract_import_without_torch():
    wanted = [
        m for m in MODULES if m.startswith(("fulcrum.gateway", "fulcrum.store", "fulcrum.rpc", "fulcrum.local"))
        and not m.endswith("__main__") and ".versions." not in m
    ]  # fmt: skip
    assert len(wanted) > 40
    done = run_without(HEAVY, wanted)
    assert done.returncode == 0, done.stderr


def test_the_sdk_imports_with_httpx_and_numpy_alone():
    wanted = [m for m in MODULES if m.startswith("fulcrum.client")]
    assert len(wanted) > 5
    blocked = [
        *HEAVY,
        "grpc",
        "google",
        "fastapi",
        "pydantic",
        "sqlalchemy",
        "redis",
        "pandas",
        "PIL",
        "rich",
        "typer",
    ]
    done = run_without(blocked, wanted)
    assert done.returncode == 0, done.stderr


def test_every_domain_error_has_a_status_at_both_borders():
    from fulcrum.gateway.errors import status_of
    from fulcrum.rpc.errors import CODES

    assert set(all_errors()) == set(CODES)
    assert {e.__name__: status_of(e("x")) for e in all_errors() if not 400 <= status_of(e("x")) <= 599} == {}


def test_every_setting_is_described_and_stands_in_the_example():
    from fulcrum.gateway.settings import Settings as Gateway
    from fulcrum.inference.settings import Settings as Inference
    from fulcrum.local.settings import Settings as Local
    from fulcrum.worker.settings import Settings as Worker
    from fulcrum_ui.settings import Settings as Frontend

    example = (ROOT / "deploy" / ".env.example").read_text()
    for settings in (Frontend, Gateway, Inference, Local, Worker):
        prefix = settings.model_config["env_prefix"]
        for name, field in settings.model_fields.items():
            alias = field.validation_alias
            names = [alias] if isinstance(alias, str) else [prefix + name.upper()]
            assert field.description, f"{prefix}{name.upper()} has no description"
            assert any(re.search(rf"^#? ?{n}=", example, re.MULTILINE) for n in names), names


def test_every_kind_of_job_has_a_spec_a_queue_and_a_handler():
    from fulcrum.domain.jobs import JOB_KINDS, QUEUES, JobSpec
    from fulcrum.worker.handlers.registry import HANDLERS

    # DESIGN.md names these too; nobody can ask for them yet. Whoever writes their spec takes them from here.
    without_spec = {"import_sae", "export_correction"}
    assert not without_spec & set(JOB_KINDS)
    specs = {spec.__dataclass_fields__["kind"].default for spec in get_args(JobSpec)}
    assert set(JOB_KINDS) == specs == set(QUEUES) == set(HANDLERS)
