"""Programs run in forks of a Python that has imported already what they import, which is most of what they would take.

What runs is a process of its own as otherwise, with its own environment, folder, streams, signals and end. Where it counts how a
program is started, or what it imports, start it by `subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Self

from tests.support.folders import quick_temporary

# Nothing of vital_tracking.cli, which looks at its environment and its terminal while it is imported.
_IMPORTED = (
    "vital_tracking.queries", "vital_tracking.stores.postgres", "vital_tracking.stores.embedded", "vital_tracking.tracker",
    "typer.main", "rich.console", "rich.progress", "rich.table", "rich.text", "langchain_openai", "langgraph.graph",
    "tests.support.spool_worker", "tests.support.budget_worker", "langgraph.types", "langgraph.checkpoint.memory",
)  # fmt: skip

_STREAMS, _STATUS = ("in", "out", "err"), "status"
_one_at_a_time = threading.Lock()


def run_forked(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], *, stdin: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `python -c code`, `python file` or the console script `vital-tracking`; killed after `timeout` seconds."""
    with quick_temporary("vital-forked-") as streams:
        given, out, err = (streams / name for name in _STREAMS)
        given.write_text(stdin, encoding="utf-8")
        code = _ask(command, folder, environment, streams, timeout=timeout)
        if code is None:
            raise subprocess.TimeoutExpired(list(command), timeout, out.read_bytes(), err.read_bytes())
        return subprocess.CompletedProcess(list(command), code, *(file.read_text("utf-8") for file in (out, err)))


class Forked:
    """A process that runs beside the test, with as much of `subprocess.Popen` as tests ask of one."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        with quick_temporary("vital-forked-") as streams:
            for name in (*_STREAMS, _STATUS):
                os.mkfifo(streams / name)
            _ask(command, folder, environment, streams, status=str(streams / _STATUS))
            # In the order in which the other side opens them: each waits for the other.
            self._status = (streams / _STATUS).open(encoding="utf-8")
            self.pid = int(self._status.readline())
            self.stdin = (streams / "in").open("w", encoding="utf-8")
            self.stdout = (streams / "out").open(encoding="utf-8")
            self.stderr = (streams / "err").open(encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self.close()

    def poll(self) -> int | None:
        """The exit code, once there is one."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readline())
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        """The exit code, for which it waits."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise TimeoutError(f"process {self.pid} goes on after {timeout} s")
            self.returncode = int(self._status.readline())
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal while it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, given: str = "", timeout: float = 60) -> tuple[str, str]:
        """Give it the last of its input and wait for its end; its output and its errors."""
        with ThreadPoolExecutor(2) as pool:
            said = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                self.stdin.write(given)
                self.stdin.close()
            except BrokenPipeError:
                pass
            try:
                self.wait(timeout)
            except TimeoutError:
                self.kill()
                raise
            out, err = (future.result() for future in said)
        self.close()
        return out, err

    def close(self) -> None:
        """Let go of its streams."""
        for stream in (self._status, self.stdin, self.stdout, self.stderr):
            with suppress(BrokenPipeError):
                stream.close()


def _ask(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], streams: Path, **more: object
) -> int | None:
    """Have a program run on these streams; its exit code, where it is waited for."""
    asked = {
        "command": list(command),
        "folder": str(folder),
        "environment": dict(environment),
        "streams": [str(streams / name) for name in _STREAMS],
        **more,
    }
    with _one_at_a_time:
        forking = _forking()
        assert forking.stdin is not None
        assert forking.stdout is not None
        forking.stdin.write(json.dumps(asked) + "\n")
        forking.stdin.flush()
        answer: int | None = json.loads(forking.stdout.readline())
        return answer


@cache
def _forking() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forked"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def end() -> None:
        process.communicate()

    atexit.register(end)
    return process


def _serve() -> None:
    """Fork for each line that asks for it, and answer with the exit code; the fork returns from here when it has run."""
    for module in _IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else each fork looks through all of it, and at its end several times
    # Not sys.stdin and sys.stdout, which become the fork's own.
    with os.fdopen(os.dup(0), encoding="utf-8") as asking, os.fdopen(os.dup(1), "w", encoding="utf-8") as answering:
        while line := asking.readline():
            asked = json.loads(line)
            fork = os.fork()
            if not fork:
                if "status" not in asked or not _keep(asked["status"]):
                    break
                os._exit(0)
            print(json.dumps(_end_of(fork, asked["timeout"]) if "timeout" in asked else 0), file=answering, flush=True)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
        else:
            return
    _run(asked)


def _keep(status: str) -> bool:
    """Fork once more and tell, through a pipe, the id and the exit code of the fork, which gets False."""
    fork = os.fork()
    if not fork:
        return False
    with open(status, "w", encoding="utf-8") as telling:
        print(fork, file=telling, flush=True)
        _, ended = os.waitpid(fork, 0)
        with suppress(BrokenPipeError):
            print(os.waitstatus_to_exitcode(ended), file=telling, flush=True)
    return True


def _end_of(fork: int, timeout: float) -> int | None:
    timed_out = False

    def kill(*_: object) -> None:
        nonlocal timed_out
        timed_out = True
        os.kill(fork, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    _, status = os.waitpid(fork, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return None if timed_out else os.waitstatus_to_exitcode(status)


def _run(asked: dict[str, object]) -> None:
    command, environment, streams = asked["command"], asked["environment"], asked["streams"]
    assert isinstance(command, list)
    assert isinstance(environment, dict)
    assert isinstance(streams, list)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(str(asked["folder"]))
    for number, (path, mode) in enumerate(
        zip(streams, (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT), strict=True)
    ):
        opened = os.open(path, mode)
        os.dup2(opened, number)
        os.close(opened)
    program, *arguments = command
    if program != sys.executable:
        sys.argv = [program, *arguments]
        sys.modules["__main__"] = types.ModuleType("__main__")  # what click reads the program's name from
        from vital_tracking.cli import main

        main()
        return
    if arguments[0] != "-c":
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")
        return
    sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
    main_module = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(arguments[1], "<string>", "exec"), main_module.__dict__)


if __name__ == "__main__":
    _serve()
