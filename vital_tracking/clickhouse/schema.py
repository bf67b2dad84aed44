"""Our tables in a ClickHouse: what it has seen of the files in schema/, and applying the rest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Final
from uuid import UUID, uuid4

from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.errors import CopyRefused
from vital_tracking.stores.relations import CALLS, COSTS, EVENTS, EXECUTIONS, RUNS, Relation

COPIED: Final[tuple[Relation, ...]] = (RUNS, CALLS, EVENTS, COSTS, EXECUTIONS)
"""What is copied, in this order."""

_INPUTS: Final = "0002_inputs"
"""The file that makes the tables where rows come in, and the views that hand them on."""

_COMMENT: Final = re.compile(r"^[ \t]*--.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """One file of schema/, or of schema/cluster/ for servers with a cluster: `<number>_<name>.sql`."""

    version: str
    template: str

    @property
    def hash(self) -> str:
        """SHA-256 of what the file does: comments and layout may change."""
        said = re.sub(r"[\s;]+", "", _COMMENT.sub("", self.template))
        return hashlib.sha256(said.encode()).hexdigest()

    def statements(self, cluster: str | None) -> Iterator[str]:
        """Its statements for a single server, or for a cluster."""
        text = Template(_COMMENT.sub("", self.template)).substitute(_WORDS(cluster))
        for statement in text.split(";"):
            if statement.strip():
                yield statement.strip()


def local_table(relation: Relation, cluster: str | None, what: str = "") -> str:
    """The table that holds the rows, or what else is named after it; on a cluster the plain name leads to those of all shards."""
    return f"{relation.name}{what}_local" if cluster else f"{relation.name}{what}"


def input_table(relation: Relation) -> str:
    """The table that rows are inserted into as text, whose view hands them on to the one that keeps them."""
    return f"{relation.name}_input"


def schema_files(cluster: str | None) -> list[SchemaFile]:
    """The files that a server or a cluster needs, in their order."""
    folder = files("vital_tracking") / "clickhouse" / "schema"
    found = [(f"{path.name[:-4]}", path) for path in folder.iterdir() if path.name.endswith(".sql")]
    if cluster:
        found += [(f"cluster_{path.name[:-4]}", path) for path in (folder / "cluster").iterdir()]
    return [SchemaFile(name, path.read_text(encoding="utf-8")) for name, path in sorted(found)]


def migrate(server: ClickHouse) -> list[str]:
    """Make the database and bring it to this version's tables; the names of the files that were applied.

    Raises CopyRefused where a file has changed since it was applied, CopyUnavailable where the server is away.
    """
    where = server.address
    words = _WORDS(where.cluster)
    server.command(f"create database if not exists {where.database} {words['on_cluster']}", database=False)
    server.command(Template(_HISTORY).substitute(words))
    known = {
        row["version"]: row["hash"]
        for row in server.query(
            "select version, argMax(hash, applied_at) as hash from vital_tracking_schema group by version"
        )
    }
    if any(_lost_views(server)):
        known.pop(_INPUTS, None)
    done = []
    for file in schema_files(where.cluster):
        if known.get(file.version, file.hash) != file.hash:
            raise CopyRefused(
                f"The tables in {where.shown} are those of another state of vital_tracking: {file.version} has changed since. "
                "Copy into another database, or drop this one: the next export fills it anew."
            )
        if file.version not in known:
            for statement in file.statements(where.cluster):
                server.command(statement, settings={"distributed_ddl_task_timeout": 600} if where.cluster else None)
            server.insert(
                "vital_tracking_schema", ("version", "hash"), f"{file.version}\t{file.hash}\n".encode(), token=file.hash
            )
            done.append(file.version)
    return done


def _lost_views(server: ClickHouse) -> Iterator[str]:
    """The views that hand on what is inserted and are not there: without one, rows would be taken and kept nowhere."""
    there = {row["name"] for row in server.query("select name from system.tables where database = currentDatabase()")}
    for relation in COPIED:
        if (view := local_table(relation, server.address.cluster, "_kept")) not in there:
            yield view


def copy_id(server: ClickHouse, database_id: str) -> UUID:
    """The id of the copy of that database that the server holds; a new one where it holds none.

    Raises CopyRefused where the server's database is a copy of another one.
    """
    statement = (
        "select toString(copy) as copy, toString(source) as source from vital_tracking_copy order by made_at limit 1"
    )
    rows = server.query(statement)
    if not rows:
        made = uuid4()
        server.insert("vital_tracking_copy", ("copy", "source"), f"{made}\t{database_id}\n".encode(), token=str(made))
        rows = server.query(statement)
    if rows[0]["source"] != str(UUID(database_id)):
        raise CopyRefused(
            f"{server.address.shown} is the copy of another PostgreSQL. Name another database in the URL: the export makes it."
        )
    return UUID(rows[0]["copy"])


_HISTORY: Final = """
create table if not exists vital_tracking_schema ${on_cluster} (
  version String, hash String, applied_at DateTime64(6, 'UTC') default now64(6)
)
engine = ${everywhere} order by version
"""


def _WORDS(cluster: str | None) -> dict[str, str]:  # noqa: N802 - the words of the templates
    """What stands for the names in ${}."""
    if cluster is None:
        return {
            "cluster": "",
            "local": "",
            "on_cluster": "",
            "replacing": "ReplacingMergeTree",
            "everywhere": "MergeTree",
            "settings": f"{_SETTINGS}, non_replicated_deduplication_window = 1000",
        }
    return {
        "cluster": cluster,
        "local": "_local",
        "on_cluster": f"on cluster '{cluster}'",
        "replacing": "ReplicatedReplacingMergeTree",
        # One table that all servers of the cluster share, whatever their shard.
        "everywhere": "ReplicatedMergeTree('/clickhouse/tables/{database}/{table}', '{shard}-{replica}')",
        "settings": f"{_SETTINGS}, replicated_deduplication_window = 1000",
    }


_SETTINGS: Final = "allow_nullable_key = 1, allow_experimental_replacing_merge_with_cleanup = 1"
