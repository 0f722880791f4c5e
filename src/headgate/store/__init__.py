"""One database, SQLite by default and PostgreSQL for several gateways: tables, migrations, rows of keys."""
