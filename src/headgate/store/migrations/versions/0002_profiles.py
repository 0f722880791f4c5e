# pyright: reportUnknownArgumentType=false
"""What was measured of versions; the seal of a decision's answer."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "profiles",
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("hardware", sa.String(), nullable=False),
        sa.Column("options", sa.String(), nullable=False),
        sa.Column("told", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("profile", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("best", sa.Boolean(), nullable=False),
        sa.Column("measured_at", sa.Double(), nullable=True),
        sa.Column("learned_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["version"], ["versions.digest"], name=op.f("fk_profiles_version"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("version", "engine", "hardware", "options", name=op.f("pk_profiles")),
    )
    op.add_column("decisions", sa.Column("seal", sa.String(), nullable=True))
