"""Every table, as SQLAlchemy Core. No ORM, and no queries: each room writes its own.

Times are float seconds since the epoch (UTC); durations `_ms` are milliseconds; ids are 32 hexadecimal digits
(UUIDv7). JSON columns take and give Python values. The migrations make the same tables; a test compares.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)

_JSON = JSON(none_as_null=True)

versions = Table(
    "versions",
    metadata,
    Column("digest", String, primary_key=True),
    Column("format", String, nullable=False),
    Column("task", String, nullable=False),
    Column("architecture", String, nullable=False),
    Column("parameters", BigInteger),
    Column("context", BigInteger),
    Column("bytes", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("chat_template", Text),
    Column("licence", Text),
    Column("origin", Text, nullable=False, default=""),
    Column("header", _JSON),
    Column("created_at", Double, nullable=False),
    Column("verified_at", Double),
)

models = Table(
    "models",
    metadata,
    Column("name", String, primary_key=True),
    Column("current_digest", String, ForeignKey("versions.digest")),
    Column("created_at", Double, nullable=False),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("name", String, ForeignKey("models.name", ondelete="CASCADE"), primary_key=True),
    Column("digest", String, ForeignKey("versions.digest"), primary_key=True),
    Column("added_at", Double, primary_key=True),
)

# What was measured of a version. `hardware` is text that tells machines apart; `options` a digest of how it was run,
# which `told` says in full. `best` marks what the last tuning of the version on this hardware chose.
profiles = Table(
    "profiles",
    metadata,
    Column("version", String, ForeignKey("versions.digest", ondelete="CASCADE"), primary_key=True),
    Column("engine", String, primary_key=True),
    Column("hardware", String, primary_key=True),
    Column("options", String, primary_key=True),
    Column("told", _JSON, nullable=False),
    Column("profile", _JSON, nullable=False),
    Column("best", Boolean, nullable=False),
    Column("measured_at", Double),
    Column("learned_at", Double),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("prefix", String, nullable=False),
    Column("hash", String, nullable=False, unique=True),
    Column("user", String, nullable=False),
    Column("team", String, nullable=False),
    Column("role", String, nullable=False),
    Column("name", String, nullable=False, default=""),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("last_used_at", Double),
)

# Why no foreign keys on the ledger's rows: they are written on the hot path and outlive the keys and replicas
# that they name. Why no lengths on texts: one long name must not break the group of rows it is written with.
requests = Table(
    "requests",
    metadata,
    Column("id", String, primary_key=True),
    Column("parent", String),
    Column("kind", String, nullable=False),
    Column("pipeline", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("user", String, nullable=False),
    Column("team", String, nullable=False),
    Column("gateway", String, nullable=False),
    Column("state", String, nullable=False),
    Column("status", Integer),
    Column("error_code", String),
    Column("stream", Boolean, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("settled_at", Double),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("queue_ms", Double),
    Column("first_token_ms", Double),
    Column("total_ms", Double),
    Column("attempts", Integer, nullable=False),
    sqlite_with_rowid=False,  # ids sort by time: the primary key alone keeps rows in the order they came
)
Index(
    "ix_requests_open",
    requests.c.gateway,
    sqlite_where=text("state = 'open'"),
    postgresql_where=text("state = 'open'"),
)

calls = Table(
    "calls",
    metadata,
    Column("id", String, primary_key=True),
    Column("request_id", String, nullable=False),
    Column("parent", String),
    Column("attempt", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("gateway", String, nullable=False),
    Column("replica", String, nullable=False),
    Column("version", String, nullable=False),
    Column("engine", String, nullable=False),
    Column("adapter", String),
    Column("device", String, nullable=False),
    Column("pool", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("user", String, nullable=False),
    Column("team", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("price_book", String),
    Column("energy_tier", String),
    Column("state", String, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("settled_at", Double),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("queue_ms", Double),
    Column("compute_ms", Double),
    Column("error_code", String),
    sqlite_with_rowid=False,
)
Index("ix_calls_request_id", calls.c.request_id)
Index(
    "ix_calls_open",
    calls.c.gateway,
    sqlite_where=text("state = 'open'"),
    postgresql_where=text("state = 'open'"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", String, primary_key=True),
    Column("pipeline", String, nullable=False),
    Column("model", String, nullable=False),
    Column("version", String, nullable=False),
    Column("engine", String, nullable=False),
    Column("pool", String, nullable=False),
    Column("device", String, nullable=False),
    Column("cores", _JSON, nullable=False),
    Column("share", Double, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("context", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("pid", Integer),
    Column("started_ticks", BigInteger),
    Column("state", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("ready_at", Double),
    Column("stopped_at", Double),
    Column("exit_code", Integer),
    Column("reason", Text),
    Column("memory_bytes", BigInteger),
)
Index("ix_replicas_state", replicas.c.state)

decisions = Table(
    "decisions",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", Double, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("trigger", String, nullable=False),
    Column("state", _JSON, nullable=False),
    Column("moves", _JSON, nullable=False),
    Column("reason", Text, nullable=False),
    Column("seal", String),
)
Index("ix_decisions_at", decisions.c.at)

leases = Table(
    "leases",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", JSON, nullable=False),
    Column("updated_at", Double, nullable=False),
)

facts = Table(
    "facts",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", JSON, nullable=False),
    Column("updated_at", Double, nullable=False),
)
