"""The steps from each schema to the next, run by Alembic. A step that shipped is never changed."""
