"""The ledger: each request and each engine call on record once, its sums, and the upkeep of its rows."""
