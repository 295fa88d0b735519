"""what imports left.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What imports left."""
    op.create_table(
        "import_contents",
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("doomed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_import_contents_job_id")),
        sa.PrimaryKeyConstraint("sha256", "job_id", name=op.f("pk_import_contents")),
    )
    with op.batch_alter_table("import_contents", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_import_contents_doomed_at"), ["doomed_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_import_contents_job_id"), ["job_id"], unique=False)
