"""Judges quality, speed and size: load probes and what they measured."""
