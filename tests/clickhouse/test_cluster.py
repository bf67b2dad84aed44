"""The tables of a cluster, as far as they can be tried without one: each statement is read, and one shard holds the rows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.schema import COPIED, input_table, schema_files
from vital_tracking.errors import SettingsError

EXAMPLES = Path(__file__).parents[2] / "examples" / "clickhouse"


def test_every_statement_of_a_cluster_is_understood(clickhouse: ClickHouse) -> None:
    clickhouse.command(f"create database {clickhouse.address.database}", database=False)
    seen = []
    for file in schema_files("main"):
        for statement in file.statements("main"):
            clickhouse.query(f"explain ast {statement}")
            assert "on cluster 'main'" in statement
            seen.append(re.search(r"not exists (\w+)", statement)[1])  # type: ignore[index]
    for relation in COPIED:
        names = (relation.name, input_table(relation))
        assert {*names, *(f"{name}_local" for name in names), f"{relation.name}_kept_local"} <= set(seen)


def test_a_cluster_of_one_shard_holds_the_rows(database_url: str, tmp_path: Path) -> None:
    """If this failed, rows or deletions would be lost between the tables that lead to shards and those that hold rows."""
    command = [sys.executable, "-m", "tests.clickhouse.one_shard", database_url, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # 29 calls, one of them deleted; all of our tables that hold rows replicate, but for those that lead to them.
    assert json.loads(done.stdout) == {
        "rows": [29, 28],
        "differences": 0,
        "rows_of_the_shard": 28,
        "repeated": [[24, 27, 24], [24, 27, 24]],
        "kept_of_ten": 10,
        "replicating": len(COPIED) + 1,
    }


def test_rows_go_to_the_shard_of_their_organization() -> None:
    """If this failed, what an organization spent would be summed up over the network, or a deletion miss its row."""
    texts = [
        statement
        for file in schema_files("main")
        for statement in file.statements("main")
        if "Distributed(" in statement
    ]
    assert len(texts) == 2 * len(COPIED)  # where rows come in, and where they are read
    assert all("cityHash64(ifNull(organization_id, ''))" in text for text in texts)


def test_the_example_names_two_shards_of_two_replicas() -> None:
    servers = ElementTree.parse(EXAMPLES / "cluster.xml").find("remote_servers/main")
    assert servers is not None
    shards = [[host.text or "" for host in shard.findall("replica/host")] for shard in servers.findall("shard")]
    assert [len(replicas) for replicas in shards] == [2, 2]
    assert all(shard.findtext("internal_replication") == "true" for shard in servers.findall("shard"))
    for number, replicas in enumerate(shards, start=1):
        for host in replicas:
            macros = ElementTree.parse(EXAMPLES / f"{host}.xml").find("macros")
            assert macros is not None
            assert (macros.findtext("shard"), macros.findtext("replica")) == (str(number), host)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://user:canary@host/db", "is no URL of a ClickHouse"),
        ("https://user:canary@host:9440/db", "own protocol"),
        ("https://user:canary@/db", "names no host"),
        ("https://user:canary@host/db?colour=red", "asks for colour"),
        ("https://user:canary@host:port/db", "cannot be read"),
        ("https://user:canary@ch..example/db", "cannot be read"),
        ("https://user:canary@host/d'b", "characters"),
    ],
)
def test_a_url_that_cannot_be_used_is_explained_without_its_password(url: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        address_of(url)
    assert says in str(caught.value)
    assert "canary" not in str(caught.value)


def test_what_is_shown_of_an_address_is_no_secret() -> None:
    address = address_of("https://user:canary@ch.example:8443/db?cluster=main")
    assert address.shown == "https://ch.example:8443/db?cluster=main"
    assert "canary" not in repr(address)
