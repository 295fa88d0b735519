"""Experts of language models.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A search may be among units of a language model, which has a reference and no id."""
    with op.batch_alter_table("experts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("language_model", sa.String(), nullable=True))
        batch_op.alter_column("model_id", existing_type=sa.VARCHAR(), nullable=True)
