"""Ids of calls: no two alike, and in the order of time."""

from __future__ import annotations

import os

import pytest

from vital_tracking.ids import new_id


def test_ids_are_uuid7_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert {text[14] for text in ids} == {"7"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_mint_other_ids_than_each_other() -> None:
    """A collision would lose a call: its row would be taken for a duplicate."""
    new_id()
    reading, writing = os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            os.write(writing, "".join(f"{new_id()}\n" for _ in range(200)).encode())
            os._exit(0)
        children.append(child)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        ids = pipe.read().split()
    for child in children:
        os.waitpid(child, 0)
    assert len(ids) == 800
    assert len(set(ids)) == 800
