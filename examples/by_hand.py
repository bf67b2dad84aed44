"""Calls that LangChain did not make, recorded by hand: AutoGen, a provider's own SDK, Perplexity.

Run it: python examples/by_hand.py
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vital_tracking import Agent, VitalTracker

RESEARCHER = Agent("researcher", name="Researcher", tier="tier_2")


def main() -> None:
    """Four calls: inside a scope, from an SDK, with only the provider known, and one that failed."""
    a_minute_ago = datetime.now(UTC) - timedelta(minutes=1)  # calls are dated by their start
    with VitalTracker.from_env() as tracker:
        # AutoGen: take the counts from the RequestUsage of each message. The scope says who and what it is for.
        with tracker.workflow("literature-review", user_id="u-1", framework="autogen"):
            tracker.record(
                provider="openai",
                model="gpt-4o",
                prompt_tokens=1200,
                completion_tokens=300,
                response_time_ms=850,
                agent=RESEARCHER,
            )

        # A raw SDK: the usage of its response. `prompt_tokens` holds the cached tokens, as OpenAI reports them.
        tracker.record(
            provider="openai",
            model="gpt-4o-mini",
            prompt_tokens=2000,
            cache_read_tokens=1500,
            completion_tokens=100,
            user_id="u-1",
            framework="openai",
            message_type="preset_action",
        )

        # Perplexity, with only the provider known: its default model prices the call, and the row says so.
        tracker.record(
            provider="perplexity",
            prompt_tokens=500,
            completion_tokens=250,
            user_id="u-1",
            framework="perplexity",
            metadata={"query": "recent trials"},
        )

        # A call that failed before the provider billed it. Of the error only the class is kept.
        tracker.record(
            provider="anthropic", model="claude-haiku-4-5", error=TimeoutError("never stored"), user_id="u-1"
        )

        tracker.flush()
        for row in tracker.store.breakdown("model", since=a_minute_ago):
            print(f"{row['label']}: {row['calls']} calls, {row['failed_calls']} failed, ${row['total_cost']:f}")


if __name__ == "__main__":
    main()
