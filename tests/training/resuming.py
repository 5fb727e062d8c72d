"""A training that is broken off and resumed, held against one that was not."""

from __future__ import annotations

from itertools import count

import torch


def for_steps(n):
    """What keeps a training on for n steps."""
    done = count()
    return lambda trainer: next(done) < n


def assert_same_when_resumed(make, keep_on):
    """Train once through, once as long as ``keep_on(trainer)``, and on from there; returns the three trainers."""
    straight, broken, resumed = make(), make(), make()
    assert straight.run(lambda progress: None, lambda: True, lambda: None)
    assert not broken.run(lambda progress: None, lambda: keep_on(broken), lambda: None)
    resumed.load_state(broken.state())
    assert resumed.run(lambda progress: None, lambda: True, lambda: None)
    assert resumed.counts() == straight.counts()
    assert len(resumed.history) == len(straight.history)
    for a, b in zip(straight.result.parameters(), resumed.result.parameters(), strict=True):
        assert torch.equal(a, b)
    return straight, broken, resumed
