"""Review of labels.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Review of labels."""
    with op.batch_alter_table("concepts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("review", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("reviewed_by", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("reviewed_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("review_note", sa.String(), server_default="", nullable=False))
        batch_op.create_index(
            batch_op.f("ix_concepts_sae_id_review_created_at_id"),
            ["sae_id", "review", "created_at", "id"],
            unique=False,
        )
        batch_op.create_foreign_key(batch_op.f("fk_concepts_reviewed_by"), "users", ["reviewed_by"], ["id"])
    # Nobody but their author has looked at the labels that people wrote so far.
    op.execute("UPDATE concepts SET review = 'proposed' WHERE label_source = 'person' AND deleted_at IS NULL")
