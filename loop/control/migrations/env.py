"""Alembic's entry: it runs on the connection that ``open_control_store`` hands over."""

from alembic import context

from loop.control.store import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
