"""Alembic's environment and the schema's versions; run through everlease.db.migrate."""
