"""Allocation, measured: traces, policies of others, and the lanes they are compared in."""
