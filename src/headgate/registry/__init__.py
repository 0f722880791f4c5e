"""Which models and versions exist, where their bytes lie, whether they may be trusted."""
