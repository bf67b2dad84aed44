"""A web service: one tracker a process, opened and closed with it, and a scope around each streamed answer.

Run it: python examples/fastapi_app.py
Serve it: uvicorn --app-dir examples fastapi_app:app, then ask: curl 'localhost:8000/ask?user_id=u-1&question=Hello'
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from models import chat_model

from vital_tracking import Agent, VitalTracker

CARDIO = Agent("cardio", name="Cardiologist", tier="tier_1")

model = chat_model()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the tracker with the process, and deliver what waits before it ends."""
    app.state.tracker = await asyncio.to_thread(VitalTracker.from_env)
    yield
    await asyncio.to_thread(app.state.tracker.close)


app = FastAPI(lifespan=lifespan)


@app.get("/ask")
async def ask(request: Request, user_id: str, question: str) -> StreamingResponse:
    """Answer a question as a stream of text."""
    tracker: VitalTracker = request.app.state.tracker

    async def answer() -> AsyncIterator[str]:
        async with tracker.conversation(user_id=user_id, session_id=f"web-{user_id}", agent=CARDIO) as turn:
            async for chunk in model.astream(question, config=turn.config()):
                yield chunk.text

    return StreamingResponse(answer(), media_type="text/plain")


def main() -> None:
    """Three users ask one question each."""
    from fastapi.testclient import TestClient

    started = datetime.now(UTC)
    with TestClient(app) as client:
        for user_id in ("u-1", "u-2", "u-3"):
            print(client.get("/ask", params={"user_id": user_id, "question": "What is atrial fibrillation?"}).text)

        tracker: VitalTracker = app.state.tracker
        tracker.flush()
        for row in tracker.store.breakdown("user", since=started):
            print(f"{row['label']}: {row['calls']} calls, ${row['total_cost']:f}")


if __name__ == "__main__":
    main()
