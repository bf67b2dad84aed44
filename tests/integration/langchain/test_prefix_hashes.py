"""Hashes of prompts' beginnings, from real models through the spool to their rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool

from tests.integration.helpers import Rows
from tests.support.provider_server import ProviderServer
from vital_tracking import VitalTracker

KEY = "canary-hash-key"
RULES = SystemMessage("canary rule. " * 800)  # 10,400 bytes
COLUMNS = "select prefix_hashes, prompt_bytes, model from token_usage_logs order by created_at, id"


@tool
def look_up(question: str) -> str:
    """Look a canary up."""
    return question


def test_prompts_are_known_by_their_beginnings_and_no_text_is_kept(
    make_tracker: Callable[..., VitalTracker], provider: ProviderServer, rows: Rows, tmp_path: Path
) -> None:
    """If this failed, advice on prompt caching would have nothing to go by, or a patient's words would lie in files and rows."""
    tracker = make_tracker(hash_key=KEY, spool_dir=tmp_path / "spool", flush_interval_s=60.0)
    config: RunnableConfig = {"callbacks": [tracker.handler]}
    openai, claude = provider.chat_openai(), provider.chat_anthropic()
    for model, question in (
        (openai, [RULES, HumanMessage("canary one")]),
        (openai, [RULES, HumanMessage("canary two " * 900)]),
        (claude, [RULES, HumanMessage("canary three")]),
        (openai.bind_tools([look_up]), [RULES, HumanMessage("canary one")]),
        (claude.bind_tools([look_up]), [RULES, HumanMessage("canary one")]),
        (openai, [HumanMessage("canary")]),
    ):
        model.invoke(question, config)
    spooled = b"".join(path.read_bytes() for path in (tmp_path / "spool").rglob("*") if path.is_file())
    assert b"gpt-4o-mini" in spooled
    assert b"canary" not in spooled
    provider.openai_embeddings().embed_documents(["canary"])
    assert tracker.flush().complete
    first, longer, claudes, with_tool, claudes_tool, short = rows(COLUMNS)
    assert [len(row["prefix_hashes"]) for row in (first, longer, claudes, with_tool)] == [2, 3, 2, 2]
    assert first["prefix_hashes"] == longer["prefix_hashes"][:2] == claudes["prefix_hashes"], "whatever the model"
    assert not set(first["prefix_hashes"]) & set(with_tool["prefix_hashes"])
    assert not set(with_tool["prefix_hashes"]) & set(claudes_tool["prefix_hashes"]), "tools as the provider takes them"
    assert 10_400 < first["prompt_bytes"] < 10_500 < with_tool["prompt_bytes"]
    assert (short["prefix_hashes"], short["prompt_bytes"]) == (None, None)
    assert "canary" not in str(rows("select t::text from token_usage_logs as t"))


def test_without_a_key_nothing_is_hashed(
    make_tracker: Callable[..., VitalTracker], provider: ProviderServer, rows: Rows
) -> None:
    """If this failed, everybody would pay for what few use, with a hash that has no key."""
    tracker = make_tracker()
    provider.chat_openai().invoke([RULES, HumanMessage("Hi")], {"callbacks": [tracker.handler]})
    assert tracker.flush().complete
    ((hashes, size),) = [(row["prefix_hashes"], row["prompt_bytes"]) for row in rows(COLUMNS)]
    assert (hashes, size) == (None, None)
