"""Shared words: ids, units, errors, clock, chance, chat types, usage. Touches no network, disk or database."""
