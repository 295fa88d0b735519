"""The job that trained an SAE.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The job that trained an SAE."""
    with op.batch_alter_table("saes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("job_id", sa.String(), nullable=True))
