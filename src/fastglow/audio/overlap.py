"""Short-time spectra of audio, changed and added up again, at once or as the audio comes in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastglow.audio.frames import (
    BLOCK,
    Float64,
    Spectra,
    Wave,
    block_of,
    frames_of,
    scratch,
    spectra_of,
)
from fastglow.audio.mel import Float32

Change = Callable[[Spectra], Spectra]


class Overlap:
    """Windows audio, has its spectra changed, and adds them up again.

    The inverse divides by the summed squared windows, so that unchanged spectra give the audio
    back. A sample is final once ``n_fft`` more have come, and then the same bit for bit, whatever
    the pieces and blocks.

    Args:
        window: [n_fft], for both ways.
        hop: Samples from frame to frame, at most ``n_fft``.
        change: Is given spectra [count, n_fft // 2 + 1], which it may overwrite, each frame once
            and in order. Frame t is centred at sample ``t * hop`` of the audio, which is mirrored
            at both ends.
        block: Frames at a time, at most.
    """

    def __init__(self, window: Float64, hop: int, change: Change, block: int = BLOCK) -> None:
        self._window, self._hop, self._change = window, hop, change
        self._block = min(block, block_of(window.size))
        self._reach = -(-window.size // hop)  # hops that a frame touches
        self._held: Wave = np.empty(0, dtype=np.float32)  # what later frames need
        self._origin = 0  # the hop that it begins with
        self._samples = 0  # that have come
        self._next = 0  # frame
        self._carry = np.zeros((2, self._reach, hop))  # sums that later frames add to

    def push(self, audio: Wave) -> Float32:
        """Takes in audio [samples]; gives all that has become final, float32 [samples].

        The audio must not be changed afterwards.
        """
        self._held = np.concatenate([self._held, audio]) if self._held.size else audio
        self._samples += audio.size
        return self._advance((self._samples - self._window.size // 2 - 1) // self._hop + 1)

    def finish(self) -> Float32:
        """The rest: nothing more will come."""
        end = self._samples // self._hop + 1 if self._samples else 0
        rest = self._advance(end, last=True)
        self._held = np.empty(0, dtype=np.float32)  # not a view of all that came
        return rest

    def _advance(self, end: int, *, last: bool = False) -> Float32:
        """The frames up to ``end - 1``, block by block, and the samples that they make final."""
        size, hop = self._window.size, self._hop
        out = [np.empty(0, dtype=np.float32)]
        while self._next < end:
            first, stop = self._next, min(self._next + self._block, end)
            frames = frames_of(self._held, first - self._origin, stop - first, size, hop)
            spectra = self._change(spectra_of(frames, self._window))
            changed = np.fft.irfft(spectra, size, out=scratch("windowed", *frames.shape))
            changed *= self._window
            sums = scratch("sums", 2, stop - first + self._reach, hop)
            sums[:, : self._reach], sums[:, self._reach :] = self._carry, 0
            self._add(sums, changed)
            done = stop - first + (self._reach if last and stop == end else 0)
            out.append(self._final(sums[:, :done], first * hop - size // 2))
            self._carry, self._next = sums[:, stop - first :].copy(), stop
        begin = max(0, self._next - self._reach)  # the mirrored end looks back less than that
        self._held = self._held[(begin - self._origin) * hop :]
        self._origin = begin
        return np.concatenate(out)

    def _add(self, sums: Float64, frames: Float64) -> None:
        """Adds frames [count, n_fft], and the squared window, into sums [2, count + reach, hop].

        The earliest first: a sample is a sum in the order of the frames, whatever the block, so
        that the rounding is the same.
        """
        count, room = len(frames), self._reach * self._hop - self._window.size
        if room:
            frames = np.pad(frames, ((0, 0), (0, room)))
        pieces = frames.reshape(count, self._reach, self._hop)
        weight = np.pad(self._window**2, (0, room)).reshape(self._reach, self._hop)
        for k in reversed(range(self._reach)):
            sums[0, k : k + count] += pieces[:, k]
            sums[1, k : k + count] += weight[k]

    def _final(self, sums: Float64, start: int) -> Float32:
        """Finished sums [2, hops, hop] from sample ``start`` on, without what is outside."""
        total, weight = sums.reshape(2, -1)
        low = max(-start, 0)
        high = max(low, min(total.size, self._samples - start))
        total = np.divide(total[low:high], weight[low:high], out=total[low:high])
        return total.astype(np.float32)
