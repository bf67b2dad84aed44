"""Where the spool lies: in a folder of this user's own, or nowhere."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vital_tracking import Settings
from vital_tracking.spool import location
from vital_tracking.spool.location import spool_location

NAME = f"vital_tracking-{os.getuid()}"


def others(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def a_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to("elsewhere")


def a_file(folder: Path) -> None:
    folder.write_text("")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder that all users share, where this user's own folder for data cannot be made."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(location, "default_data_dir", lambda: tmp_path / "file" / "data")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_without_another_folder_it_lies_under_the_temporary_one_for_this_user_alone(shared: Path) -> None:
    """If this failed, all users of a machine could read and change what this one records."""
    found = spool_location(Settings(), "there", "there")
    assert found is not None
    assert found.root == shared / NAME / "spool"
    for folder in (shared / NAME, found.root):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("made", [others, open_to_all, a_link, a_file])
@pytest.mark.parametrize("place", ["", "spool"])
def test_a_folder_that_another_user_may_have_made_is_never_taken(
    made: Callable[[Path], None], place: str, shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If this failed, whoever was there first could read this user's calls, or have it deliver his own."""
    if made is others and os.getuid() != 0:
        pytest.skip("only root can make a folder of another user's")
    folder = shared / NAME / place
    if place:
        folder.parent.mkdir(mode=0o700)
    made(folder)
    assert spool_location(Settings(), "there", "there") is None
    assert "There is no folder for the spool" in caplog.text


def test_a_folder_that_was_named_is_taken_as_it_is(shared: Path) -> None:
    """If this failed, calls would lie somewhere else than where the team looks for them."""
    found = spool_location(Settings(spool_dir=shared / "named"), "there", "there")
    assert found is not None
    assert found.root == shared / "named"
    assert spool_location(Settings(spool=False), "there", "there") is None
