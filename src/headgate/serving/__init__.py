"""The one governed call that gateway, batch and evaluation all use: admission, route, attempts, token log, ledger."""
