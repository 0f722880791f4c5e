"""What Alembic runs: the steps, on the connection and in the transaction that `migrate` hands in."""

from alembic import context

from headgate.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
