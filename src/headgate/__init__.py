"""Headgate: many small language models, the hardware you own, one OpenAI-compatible door."""

__version__ = "0.1.0"
