"""Benchmarks: each prints a table, writes flat JSON with --json, compares with something measured in the same run."""
