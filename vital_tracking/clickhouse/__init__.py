"""The read copy in a ClickHouse: its tables, filling it from PostgreSQL, each row once and none missed, and comparing the two."""
