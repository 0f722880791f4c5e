"""Writes docs/reference/ from the code, so that settings, commands, routes and metrics cannot be documented wrongly."""
