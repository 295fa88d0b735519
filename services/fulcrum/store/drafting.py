"""A first draft of the next migration: the difference between the steps and the tables.

python -m fulcrum.store.drafting "jobs and their shards"
"""

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext
from sqlalchemy.types import JSON

from fulcrum.domain.errors import InvalidRequest
from fulcrum.store.columns import Moment
from fulcrum.store.engines import open_engine
from fulcrum.store.migrating import FOLDER, migrate_engine, revisions
from fulcrum.store.transaction import METADATA

_TEMPLATE = '''"""{title}.

Revision ID: {revision}
Revises: {previous}
"""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{previous}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """{title}."""
{body}
'''


def draft(title: str, folder: Path = FOLDER) -> Path:
    """Write the next step into `folder` and return its path. Raises InvalidRequest when nothing changed."""
    body = _difference(folder)
    if body.strip() == "pass":
        raise InvalidRequest("the tables are what the migrations make: change them first")
    previous = list(revisions(folder))[-1]
    revision = f"{int(previous) + 1:04d}"
    words = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")
    path = folder / "versions" / f"r{revision}_{words}.py"
    path.write_text(_TEMPLATE.format(title=title, revision=revision, previous=previous, body=body))
    return path


def _difference(folder: Path) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        engine = open_engine(f"sqlite:///{temporary}/empty.sqlite")
        try:
            migrate_engine(engine, folder)
            with engine.connect() as connection:
                options = {"render_item": _render, "target_metadata": METADATA}
                context = MigrationContext.configure(connection, opts=options)
                operations = produce_migrations(context, METADATA).upgrade_ops
                assert operations is not None
                code = render_python_code(operations, render_as_batch=True, render_item=_render)
        finally:
            engine.dispose()
    lines = [line for line in code.splitlines() if not line.strip().startswith("#")]
    return "\n".join(lines).strip("\n") or "    pass"


def _render(kind: str, item: Any, context: Any) -> Any:
    # A step stands for what the tables were when it was written, so it names no class of ours.
    if kind == "type" and isinstance(item, Moment):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, JSON):
        return "sa.JSON()"
    return False


if __name__ == "__main__":
    print(draft(sys.argv[1]))
