"""A web application that asks a model, as gunicorn preloads it: the tracker and its handler are made at import.

/call   asks once, and answers with the process's id
/hang   begins a call that no answer comes to
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.support.spool_worker import PROMPT, HangingModel, Log, Witness, model_for, open_tracker

log = Log(Path(os.environ["CALLS"]))
tracker = open_tracker(flush_interval_s=0.1)
handler = tracker.handler


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """One request."""
    model = model_for(os.getpid() % 1000, *([HangingModel] if environ["PATH_INFO"] == "/hang" else []))
    model.invoke(PROMPT, {"callbacks": [handler, Witness(log)]})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
