"""Copies from the device, without one: what page-locks and waits is a stand-in."""

import contextlib

import numpy as np
import pytest
import torch

from fastglow.engines.cuda import aside
from fastglow.engines.cuda.aside import Aside


@pytest.mark.parametrize("piece", [1, 7, 12, 13, 100])
def test_what_comes_in_pieces_is_whole_and_the_caller_s(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream:
        waited = 0

        def synchronize(self) -> None:
            self.waited += 1

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda size, pin_memory: empty(size))
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(aside, "PIECE", piece)
    copies = Aside(torch.device("cpu"))
    copies._stream = Stream()  # type: ignore[assignment]
    found = torch.arange(12.0).reshape(3, 4)
    heard = copies.fetch(found)
    assert copies._stream.waited == -(-12 // piece)  # type: ignore[union-attr]
    found.zero_()
    np.testing.assert_array_equal(heard, np.arange(12, dtype=np.float32).reshape(3, 4))
