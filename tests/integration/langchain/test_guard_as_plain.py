"""LangChain's standard tests of chat models come out alike on a plain and on a guarded model, test by test.

If this fails, a guarded model takes other arguments, sends other requests or can do less than the model that was guarded.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tests.support.provider_server import ProviderServer
from vital_tracking import VitalTracker
from vital_tracking.testing import MemoryStore, fake_chat_model

SUITES = Path(__file__).with_name("standard_suites.py")
ENDINGS = ("Guarded", "InChain")
# Ids and addresses, which differ from one run to the next.
CHANGING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d{8,}|:\d{4,5}/")


class Answer(BaseModel):
    """An answer."""

    text: str


class Result(NamedTuple):
    """What became of a test: its outcome with the first line of what it says, and what the server was asked."""

    outcome: str
    said: str
    asked: str


def results(report: Path) -> dict[str, dict[str, Result]]:
    """The results in a report, by class and test."""
    found: dict[str, dict[str, Result]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        ended = next((part for part in case if part.tag in ("failure", "error", "skipped")), None)
        asked = "".join(part.get("value", "") for part in case.iter("property"))
        said = "" if ended is None else (ended.get("message") or "").partition("\n")[0]
        result = Result("passed" if ended is None else ended.tag, CHANGING.sub("#", said), CHANGING.sub("#", asked))
        found.setdefault(str(case.get("classname")).rpartition(".")[2], {})[str(case.get("name"))] = result
    return found


@pytest.mark.timeout(600)  # half a minute of work, which a busy machine makes long
def test_every_standard_test_ends_alike(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    options = ["-q", "-o", "addopts=", "-W", "ignore", "-p", "no:cacheprovider", "--benchmark-disable"]
    command = [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", str(SUITES)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=570)
    assert ran.returncode in (0, 1), ran.stdout[-2000:] + ran.stderr[-2000:]
    found = results(report)
    pairs = [(plain, name) for name in found for ending in ENDINGS if (plain := name.removesuffix(ending)) != name]
    assert len(pairs) == 10
    for plain, guarded in pairs:
        assert found[guarded] == found[plain], guarded
    passed = [test for test in found["TestOpenAICalls"].items() if test[1].outcome == "passed"]
    assert len(passed) > 25
    assert sum(result.asked not in ("", "[]") for _, result in passed) > 20
    assert found["TestOpenAICallsGuarded"]["test_tool_choice"].outcome == "passed"


def plain_models() -> list[BaseChatModel]:
    openai: Any = ChatOpenAI(model="gpt-4o", api_key="key")  # type: ignore[arg-type]
    claude: Any = ChatAnthropic(model="claude-haiku-4-5", api_key="key")  # type: ignore[call-arg,arg-type]
    return [openai, claude, fake_chat_model()]


@pytest.mark.parametrize("model", plain_models(), ids=lambda model: type(model).__name__)
def test_a_guarded_model_shows_the_methods_of_its_plain_one(model: BaseChatModel) -> None:
    """Agents look at signatures to decide what to pass: langgraph-supervisor asks for `parallel_tool_calls` that way."""
    with VitalTracker(MemoryStore()) as tracker:
        shown = type(tracker.guard(model))
    methods = [name for name, value in inspect.getmembers(type(model), inspect.isfunction) if name[:2] != "__"]
    assert {"bind_tools", "with_structured_output", "generate", "astream"} <= set(methods)
    for name in methods:
        theirs, ours = getattr(type(model), name), getattr(shown, name)
        assert inspect.signature(ours) == inspect.signature(theirs), name
        assert ours.__doc__ == theirs.__doc__, name
        assert (ours.__name__, ours.__qualname__) == (theirs.__name__, theirs.__qualname__)
        for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
            assert kind(ours) == kind(theirs), name
    for binds in ("bind_tools", "with_structured_output"):
        lacking = getattr(type(model), binds) is getattr(BaseChatModel, binds)
        assert (getattr(shown, binds) is getattr(BaseChatModel, binds)) == lacking


def test_a_guarded_model_with_methods_of_its_own_keeps_them() -> None:
    """LangChain's simple models have a method `_call`: a guard's own must not take its place."""
    model = fake_chat_model()
    with VitalTracker(MemoryStore()) as tracker:
        guarded = tracker.guard(model)
    added = set(dir(type(guarded))) - set(dir(type(model)))
    assert added == {name for name in added if name.startswith("_vital_")}
    assert type(guarded)._call is type(model)._call  # type: ignore[attr-defined]


@pytest.mark.parametrize("downgrade_to", [None, "gpt-4o"])
async def test_a_warning_of_langchains_names_the_users_line(provider: ProviderServer, downgrade_to: Any) -> None:
    """A line of ours tells nobody what to change; and Python shows a warning once a line, so others would go unseen."""
    with VitalTracker(MemoryStore()) as tracker:
        plain = provider.chat_openai()
        guarded: Any = tracker.guard(plain, downgrade_to=downgrade_to)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            guarded.invoke("q")
            await guarded.ainvoke("q")
            assert list(guarded.stream("q"))
            assert [chunk async for chunk in guarded.astream("q")]
            assert list(guarded.stream_events("q", version="v3"))
            events = [event async for event in await guarded.astream_events("q", version="v3")]
            guarded.bind_tools([Answer])
            guarded.with_structured_output(Answer, method="json_mode")
        assert events
        assert any("beta" in str(warning.message) for warning in caught), "nothing was warned of"
        assert {warning.filename for warning in caught} == {__file__}
