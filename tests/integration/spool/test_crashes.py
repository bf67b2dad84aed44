"""Processes die by kill -9 at any moment, threads die, recorders break: every call is stored once, as what it became."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.helpers import Rows, dollars
from tests.support.effort import examples
from tests.support.folders import REPOSITORY
from tests.support.postgres import free_port
from tests.support.spool_worker import PROMPT_TOKENS, Story
from vital_tracking import VitalTracker
from vital_tracking.delivery import Stats

KILLS = examples(50)


def worker(job: str, database: str, spool: Path, **options: Any) -> subprocess.Popen[str]:
    """A worker at its job."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.spool_worker", job, json.dumps(options)],
        env={"DATABASE": database, "SPOOL": str(spool), "PYTHONPATH": str(REPOSITORY), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> str:
    """What a worker has said, once it has ended well."""
    try:
        said, complaints = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, complaints
    assert "Traceback" not in complaints, complaints
    return said


def deliver_the_rest(make_tracker: Callable[..., VitalTracker], spool_dir: Path, kills: int = 0) -> Stats:
    """Have a fresh tracker deliver all that dead processes have left; what it says it did.

    Each kill may have come in the middle of a write: then that record, of which nobody was told yet, cannot be read.
    """
    heir = make_tracker(spool_dir=spool_dir)
    assert heir._recorder.replay(120)
    assert heir.close(60).complete
    assert not list(spool_dir.rglob("*.segment"))
    assert not list(spool_dir.rglob("rejected.jsonl*"))
    stats: Stats = heir.stats()
    assert stats.damaged <= kills
    assert (stats.rejected, stats.dropped, stats.faults, stats.merged) == (0, 0, 0, 0)
    return stats


def compare(story: Story, found: list[dict[str, Any]]) -> Counter[str]:
    """Hold every row against the log: each call once, each end as it was, and each amount to the last digit."""
    assert len({row["id"] for row in found}) == len(found)
    calls = {row["run_id"]: row for row in found if row["run_id"] is not None}
    records = {str(row["id"]): row for row in found if row["run_id"] is None}
    assert len(calls) + len(records) == len(found)
    assert story.started <= calls.keys()
    assert story.recorded.keys() <= records.keys()
    total = Decimal(0)
    for key, row in {**calls, **records}.items():
        status = row["status"]
        known = story.ended.get(key) or story.recorded.get(key)
        if known is not None:
            assert (status, row["prompt_tokens"], row["completion_tokens"]) == known
        elif key in story.started and status != "ok":
            # It was given up, or has failed and was killed before the log heard of it.
            assert status in ("abandoned", "cancelled", "error"), row
        # What is in no log had begun, or had ended, in the moment that its process was killed.
        if status in ("abandoned", "cancelled"):
            assert (row["prompt_tokens"], row["completion_tokens"]) == (PROMPT_TOKENS, 0)
        expected = dollars((row["prompt_tokens"], "0.15"), (row["completion_tokens"], "0.60"))
        assert row["total_cost"] == expected
        total += expected
    assert sum(row["total_cost"] for row in found) == total
    return Counter(row["status"] for row in found)


def test_a_kill_at_any_moment_loses_and_doubles_no_call(
    make_tracker: Callable[..., VitalTracker], database_url: str, spool_dir: Path, rows: Rows, tmp_path: Path
) -> None:
    """If this failed, a crash, or a machine short of memory, would lose or double calls that were paid for."""
    log = tmp_path / "log"
    options = {"log": str(log), "kills": KILLS // 2, "at_once": 5}
    workers = [
        worker("doomed", database_url, spool_dir, seed=1000 * inherited, inherited=inherited, **options)
        for inherited in (False, True)
    ]
    for process in workers:
        assert finish(process) == f"{KILLS // 2} killed\n"
    before = len(rows())
    stats = deliver_the_rest(make_tracker, spool_dir, kills=KILLS)
    story, found = Story.read(log), rows()
    statuses = compare(story, found)
    print(len(story.started), "started,", before, "delivered before, then", stats.replayed, dict(statuses))
    # Enough has gone on for this to prove something.
    assert before > 0
    assert stats.replayed > 0
    assert {"ok", "error", "cancelled", "abandoned"} <= statuses.keys()
    assert len(story.ended) + len(story.recorded) > 1000


def test_two_hundred_forks_under_load_lose_and_double_no_call(
    make_tracker: Callable[..., VitalTracker], database_url: str, spool_dir: Path, rows: Rows, tmp_path: Path
) -> None:
    """If this failed, a pre-forking server would lose calls, store them twice, or hang now and then."""
    log = tmp_path / "log"
    forking = worker("forking", database_url, spool_dir, log=str(log), forks=200, at_once=8, patience_s=60)
    assert finish(forking) == "200 forked\n"
    deliver_the_rest(make_tracker, spool_dir)
    story, found = Story.read(log), rows()
    compare(story, found)
    assert {row["run_id"] or str(row["id"]) for row in found} == story.ended.keys() | story.recorded.keys()
    assert {row["status"] for row in found} <= {"ok", "error"}


# Privacy

CANARY = "canary-5up3r53cr3t"

PRIVATE = """
import asyncio, logging, os, signal, sys, threading
from pathlib import Path
from decimal import Decimal
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import SecretStr
from tests.support.postgres import free_port
from tests.support.spool_worker import *
from vital_tracking import Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

logging.basicConfig(level=logging.DEBUG, filename=os.environ["SAID"])
for noisy in ("asyncio", "psycopg", "psycopg.pool"):
    logging.getLogger(noisy).setLevel(logging.WARNING)
secret = os.environ["CANARY"]
settings = Settings(
    spool_dir=Path(os.environ["SPOOL"]), flush_interval_s=3600,
    hash_key=SecretStr(f"{secret}-hash-key"), supabase_service_key=SecretStr(f"{secret}-service-key"),
    database_url=SecretStr(os.environ["DATABASE"]), provider_keys={"OPENAI_API_KEY": SecretStr(f"{secret}-provider-key")},
)
tracker = VitalTracker(PostgresStore(os.environ["DATABASE"]), settings=settings)

class ProviderError(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.code = self.type = self.body = self.request_id = text
        self.response = {"error": text}

class Model(FakeUsageModel):
    base_url: str = f"https://user:{secret}-url@provider.example/v1?key={secret}-url"
    api_key: str = f"{secret}-api-key"
    fails: bool = False
    extra: dict = {}

    @property
    def _identifying_params(self):
        return {"base_url": self.base_url, "api_key": self.api_key, "organization": f"{secret}-organization"}

    def _call(self, messages, stop=None, run_manager=None, **kwargs):
        if self.fails:
            raise ProviderError(f"Incorrect API key {secret}-in-error at {self.base_url}")
        return f"{secret}-answer"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        result = super()._generate(messages, stop, run_manager, **kwargs)
        message = result.generations[0].message
        message.usage_metadata = {**message.usage_metadata, **self.extra}
        message.response_metadata |= {"logprobs": [f"{secret}-logprobs"], "headers": {"authorization": f"{secret}-header"},
                                      "refusal": f"{secret}-refusal"}
        message.additional_kwargs["function_call"] = {"arguments": f"{secret}-arguments"}
        result.llm_output = {"token_usage": {"prompt_tokens": 5, "note": f"{secret}-token-usage"}, "prompt": f"{secret}-output"}
        return result

tool_call = {"name": "t", "args": {"a": f"{secret}-arg"}, "id": "1"}
questions = [HumanMessage(f"{secret}-prompt"), AIMessage("", tool_calls=[tool_call])]
metadata = {"secret_note": f"{secret}-metadata", "vital_secret": f"{secret}-vital", "user_email": f"{secret}-email",
            "nested": {"key": [f"{secret}-nested"]}, "vital_user_id": "u-1"}
config = {"callbacks": [tracker.handler, Witness(Log(Path(os.environ["CALLS"])))], "metadata": metadata}
usages = [{}, {"input_tokens": f"{secret}-usage"},
          {"note": f"{secret}-usage", "input_token_details": {"audio": f"{secret}-detail"}},
          {"output_token_details": [f"{secret}-list"], "input_tokens": Decimal(3)}, {"x": object(), "y": b"canary"}]
for extra in usages:
    Model(responses=[""], extra=extra).invoke(questions, config)
list(Model(responses=[f"{secret}-streamed"]).stream(questions, config))
for kind in (ProviderError, ConnectionError, asyncio.TimeoutError):
    try:
        Model(responses=[""], fails=True).invoke(questions, config)
    except ProviderError:
        pass

class Slow(Model):
    async def _agenerate(self, *args, **kwargs):
        await asyncio.sleep(60)

async def cancelled():
    task = asyncio.ensure_future(Slow(responses=[""]).ainvoke(questions, config))
    while tracker.stats().in_flight < 1: await asyncio.sleep(0)
    task.cancel(f"{secret}-cancel")
    await asyncio.gather(task, return_exceptions=True)

asyncio.run(cancelled())
tracker.record(provider="openai", model=MODEL, prompt_tokens=5, completion_tokens=1, error=ProviderError(f"{secret}-direct"))
tracker.record(provider="openai", model=MODEL, prompt_tokens=5, completion_tokens=1, error=f"failed: {secret}-text")
tracker.record(provider="openai", model="rejected", prompt_tokens=5, completion_tokens=1)
try:
    with tracker.admit(provider="openai", model=MODEL, prompt=f"{secret}-admitted"):
        raise ProviderError(f"{secret}-in-block")
except ProviderError:
    pass
pending = tracker.admit(provider="openai", model=MODEL, prompt=f"{secret}-pending")
class Hanging(Model):
    def _call(self, *args, **kwargs):
        threading.Event().wait()
threading.Thread(target=Hanging(responses=[""]).invoke, args=(questions, config), daemon=True).start()
while tracker.stats().in_flight < 1: pass
repr(tracker), repr(settings)
delivered = tracker.flush(float(os.environ["WAIT"]))
print(delivered, tracker.stats(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def find_canaries(folder: Path) -> list[str]:
    """Every place in files below a folder where a secret stands, with what surrounds it."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found += [
                f"{path.name}: {data[max(match.start() - 60, 0) : match.end() + 20]!r}"
                for match in re.finditer(CANARY.encode(), data)
            ]
    return found


@pytest.mark.parametrize("database", ["up", "down"])
def test_no_secret_is_in_any_file_row_or_log(
    database: str,
    make_tracker: Callable[..., VitalTracker],
    database_url: str,
    spool_dir: Path,
    rows: Rows,
    tmp_path: Path,
) -> None:
    """If this failed, prompts, answers or keys would lie on a disk, in a log, or before every admin's eyes."""
    said = tmp_path / "said"
    said.mkdir()
    # A row that the database refuses, so that one lies in rejected.jsonl.
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "alter table public.token_usage_logs add constraint refused check (model is distinct from 'rejected')"
        )
    url = database_url.replace("postgres@", f"postgres:{CANARY}-password@")
    if database == "down":
        url = re.sub(r":\d+/", f":{free_port()}/", url)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", PRIVATE],
        env={
            "DATABASE": url,
            "SPOOL": str(spool_dir),
            "CALLS": str(tmp_path / "calls"),
            "SAID": str(said / "log"),
            "CANARY": CANARY,
            "PYTHONPATH": str(REPOSITORY),
            "PATH": "",
            "WAIT": "60" if database == "up" else "0.3",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    (said / "out").write_text(done.stdout)
    (said / "err").write_text(done.stderr)
    hits = find_canaries(spool_dir)
    assert not hits, "\n".join(hits)
    assert list(spool_dir.rglob("*.segment"))
    for path in [spool_dir, *spool_dir.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    if database == "up":
        assert list(spool_dir.rglob("rejected.jsonl"))
        heir = make_tracker(spool_dir=spool_dir)
        assert heir._recorder.replay(60)
        assert heir.stats().abandoned >= 2
        assert heir.close(60).complete
    assert find_canaries(said) == []
    assert find_canaries(spool_dir) == []
    tables = rows(
        "select c.oid::regclass::text as name from pg_class as c where relkind = 'r' and relnamespace in "
        "('public'::regnamespace, 'vital_private'::regnamespace)"
    )
    hits = [
        (t["name"], row)
        for t in tables
        for row in rows(f"select * from {t['name']} as t where t::text like '%{CANARY}%'")
    ]
    assert hits == []
    if database == "up":
        statuses = Counter(row["status"] for row in rows())
        assert {"ok", "error", "cancelled", "abandoned"} <= statuses.keys()
