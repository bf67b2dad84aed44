"""The copy in a ClickHouse, with ClickHouse's own client and engine in this process. Run by `make test-clickhouse`."""
