"""Retrieval: `tracker.embeddings(...)` records what LangChain fires no callbacks for; chat and embeddings share a scope.

Run it: python examples/retrieval.py (the in-memory vector store needs numpy: pip install numpy)
"""

from __future__ import annotations

from datetime import UTC, datetime

from langchain_core.vectorstores import InMemoryVectorStore
from models import chat_model, embedding_model

from vital_tracking import VitalTracker

TEXTS = ["Aspirin thins the blood.", "Beta blockers slow the heart.", "Statins lower cholesterol."]


def main() -> None:
    """Index three texts, find the best one for a question, and answer from it."""
    started = datetime.now(UTC)
    model = chat_model()
    with VitalTracker.from_env() as tracker:
        embeddings = tracker.embeddings(embedding_model(), provider="openai", model="text-embedding-3-small")
        with tracker.workflow("answer-from-sources", user_id="u-1") as workflow:
            found = InMemoryVectorStore.from_texts(TEXTS, embeddings).similarity_search("What slows the heart?", k=1)
            question = f"From this: {found[0].page_content} What slows the heart?"
            print(model.invoke(question, config=workflow.config()).text)

        tracker.flush()
        for row in tracker.store.breakdown("model", since=started):
            print(f"{row['label']}: {row['calls']} calls, {row['prompt_tokens']} prompt tokens, ${row['total_cost']:f}")


if __name__ == "__main__":
    main()
