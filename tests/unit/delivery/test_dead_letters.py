"""Dead letters: each is kept until somebody is done with it, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.folders import REPOSITORY
from vital_tracking.delivery import dead_letters
from vital_tracking.delivery.dead_letters import FILE, DeadLetters, forget_taken, letters_in, take_letters

TRIES = settings(max_examples=40, deadline=None, derandomize=True)


def rows_in(path: Path) -> list[str]:
    return [letter.row for letter in letters_in(path)]


@TRIES
@given(st.lists(st.text() | st.sampled_from(['{"id":"1"}', "\ud800", "\n\n", "", "\0"]), max_size=8))
def test_a_refused_row_can_be_looked_at(tmp_path_factory: pytest.TempPathFactory, rows: list[str]) -> None:
    """If this failed, nobody could see what the database refused."""
    folder = tmp_path_factory.mktemp("letters") / "of a database"
    letters = DeadLetters(folder)
    for row in rows:
        assert letters.add("record_calls_v1", row, "23514", "a_rule")
    expected = [row.encode("utf-8", "replace").decode() for row in rows]
    found = list(letters_in(folder / FILE))
    assert [letter.row for letter in found] == expected
    assert {(letter.function, letter.sqlstate, letter.rule) for letter in found} <= {
        ("record_calls_v1", "23514", "a_rule")
    }
    assert all(isinstance(letter.fields, dict) for letter in found)


def test_only_their_owner_may_read_dead_letters(tmp_path: Path) -> None:
    """If this failed, other users of the machine could read who asked which model."""
    mask = os.umask(0)
    try:
        assert DeadLetters(tmp_path / "folder").add("f", "{}", None, None)
    finally:
        os.umask(mask)
    assert (tmp_path / "folder" / FILE).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    take_letters(tmp_path / "folder")
    [path] = (tmp_path / "folder").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_dead_letter_behind_a_torn_one_can_be_read(tmp_path: Path) -> None:
    """If this failed, a full disk would cost the next letter too."""
    letters = DeadLetters(tmp_path)
    letters.add("f", "first", None, None)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"at":"2026-01-01","function":"f","ro')
    letters.add("f", "second", None, None)
    letters.add("f", "third", None, None)
    assert rows_in(tmp_path / FILE) == ["first", "second", "third"]


def test_a_broken_line_hides_no_dead_letter(tmp_path: Path) -> None:
    """If this failed, one broken line would hide all letters behind it."""
    letters = DeadLetters(tmp_path)
    letters.add("f", "first", None, None)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'\n[]\n"text"\n{}\n\xff\xfe\n{"at":1}\n' + b"x" * 100_000 + b"\n")
    letters.add("f", "second", None, None)
    assert rows_in(tmp_path / FILE) == ["first", "second"]


def test_a_full_disk_stops_no_delivery_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, dead letters would fill the disk, or raise where calls are delivered."""
    monkeypatch.setattr(dead_letters, "_LIMIT_BYTES", 1000)
    letters = DeadLetters(tmp_path / "folder")
    kept = [number for number in range(30) if letters.add("f", f"{number}" + "x" * 50, None, None)]
    assert 2 < len(kept) < 15
    assert (tmp_path / "folder" / FILE).stat().st_size <= 1000
    assert len(rows_in(tmp_path / "folder" / FILE)) == len(kept)
    (tmp_path / "a file").write_text("")
    assert not DeadLetters(tmp_path / "a file").add("f", "{}", None, None)
    assert not DeadLetters(None).add("f", "{}", None, None)


def test_dead_letters_stay_until_their_resend_is_done(tmp_path: Path) -> None:
    """If this failed, a resend that is interrupted would lose what it had not sent."""
    letters = DeadLetters(tmp_path)
    assert take_letters(tmp_path) == []
    forget_taken(tmp_path)
    letters.add("f", "first", None, None)
    assert [letter.row for letter in take_letters(tmp_path)] == ["first"]
    letters.add("f", "second", None, None)  # set aside anew, or another process's
    assert rows_in(tmp_path / FILE) == ["second"]
    assert [letter.row for letter in take_letters(tmp_path)] == ["first", "second"]  # the first resend has died
    assert [letter.row for letter in take_letters(tmp_path)] == ["first", "second"]
    letters.add("f", "third", None, None)
    forget_taken(tmp_path)
    assert rows_in(tmp_path / FILE) == ["third"]
    assert [letter.row for letter in take_letters(tmp_path)] == ["third"]


@pytest.mark.parametrize("torn", [b"", b'{"at":"2026-01-01","fun'])
@pytest.mark.parametrize("step", ["write", "unlink"])
def test_a_crash_during_a_resend_loses_no_dead_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, torn: bytes
) -> None:
    """If this failed, two crashes in a row would lose letters."""
    letters = DeadLetters(tmp_path)
    letters.add("f", "first", None, None)
    take_letters(tmp_path)
    with (tmp_path / f"{FILE}.taken").open("ab") as file:
        file.write(torn)  # what an earlier death has left
    letters.add("f", "second", None, None)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes" if step == "write" else "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            take_letters(tmp_path)
    letters.add("f", "third", None, None)  # nobody is locked out
    assert {letter.row for letter in take_letters(tmp_path)} == {"first", "second", "third"}


ADDS = """
import sys
from pathlib import Path
from vital_tracking.delivery.dead_letters import DeadLetters

letters = DeadLetters(Path(sys.argv[1]))
for number in range(400):
    assert letters.add("f", f"{sys.argv[2]} {number}", None, None)
"""


def test_a_dead_letter_set_aside_during_a_resend_is_kept(tmp_path: Path) -> None:
    """If this failed, a letter would be lost that comes in the moment of a resend."""
    command = [sys.executable, "-c", ADDS, str(tmp_path)]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
    adders = [subprocess.Popen([*command, name], env=environment) for name in ("one", "two")]
    thread = threading.Thread(
        target=lambda: [DeadLetters(tmp_path).add("f", f"three {number}", None, None) for number in range(400)]
    )
    thread.start()
    found: list[str] = []
    while thread.is_alive() or any(adder.poll() is None for adder in adders):
        found += [letter.row for letter in take_letters(tmp_path)]
        forget_taken(tmp_path)
    thread.join(60)
    assert [adder.wait(60) for adder in adders] == [0, 0]
    found += [letter.row for letter in take_letters(tmp_path)]
    assert sorted(found) == sorted(f"{name} {number}" for name in ("one", "two", "three") for number in range(400))


def test_a_process_killed_while_writing_locks_nobody_out(tmp_path: Path) -> None:
    """If this failed, letters could not be set aside after a crash."""
    script = ADDS.replace("range(400)", "range(10**9)") + "\n"
    adder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), "x"], env={"PYTHONPATH": str(REPOSITORY), "PATH": ""}
    )
    while not (tmp_path / FILE).exists():
        assert adder.poll() is None
    adder.send_signal(signal.SIGKILL)
    adder.wait(30)
    assert DeadLetters(tmp_path).add("f", "last", None, None)
    assert take_letters(tmp_path)[-1].row == "last"
