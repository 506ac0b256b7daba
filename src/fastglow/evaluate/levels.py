"""What can be said of one signal alone: lines, noise floor, peak, predicted opinion."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout

import numpy as np

from fastglow.audio.frames import hann
from fastglow.errors import InputError
from fastglow.evaluate.libraries import importable, optional
from fastglow.evaluate.metrics import Wave, wideband

LINES = 3  # whistles that are measured
WINDOW = 4096  # samples, about, of the long-term average spectrum
HUM_HOPS = 16  # hops in a window of the hum: lines 16 bins apart
NEAR, FAR = 3, 24  # bins from a line to its neighbours, outside the window's main lobe
FRAME, HOP = 1024, 256  # samples of the noise floor's frames
QUIETEST = 5  # per cent of the frames
SILENCE = 1e-6  # RMS; -120 dB, nothing is reported as quieter

Mos = Callable[[Wave, int], float | None]


def whistles(wave: Wave, group: int = 8) -> tuple[float | None, ...]:
    """How far the lines at k / group of the rate, k = 1 to 3, stand out of what is around them.

    WaveGlow squeezes ``group`` samples into a step, so what its channels do not do alike repeats
    at these frequencies. Long-term average power under Hann windows of 4096 samples, whose bins
    fall on the lines; the line's bin over the median of those 3 to 24 bins off, on both sides.

    Args:
        wave: [samples].
        group: The model's ``n_group``.

    Returns:
        dB for each line: about 0 where there is none. None if the line is at the Nyquist
        frequency or above, if the signal is shorter than a window, or silent there.
    """
    size = WINDOW - WINDOW % (2 * group)
    if wave.size < size:
        return (None,) * LINES
    window, power = hann(size, size), np.zeros(size // 2 + 1)
    for start in range(0, wave.size - size + 1, size // 4):
        power += np.abs(np.fft.rfft(wave[start : start + size] * window)) ** 2
    offsets = np.arange(NEAR, FAR + 1)
    found: list[float | None] = []
    for line in range(size // group, LINES * size // group + 1, size // group):
        level = None
        if line + FAR < power.size:
            around = np.median(power[np.concatenate([line - offsets, line + offsets])])
            if around > 0 and power[line] > 0:
                level = float(10 * np.log10(power[line] / around))
        found.append(level)
    return tuple(found)


def hop_hum(wave: Wave, hop: int) -> float | None:
    """How far the multiples of rate / hop stand out of what lies halfway between them.

    Where the mel stands still, a vocoder that makes no use of its noise repeats itself every hop:
    noise and consonants turn into a hum of these lines.

    Args:
        wave: [samples].
        hop: Samples a mel frame.

    Returns:
        dB, the mean over Hann windows of 16 hops and over all lines of the level on the line less
        that halfway to the next: 0 for noise and for recordings. None if the signal is shorter than
        a window.
    """
    size = HUM_HOPS * hop
    if wave.size < size:
        return None
    window = hann(size, size)
    lines = np.arange(HUM_HOPS, size // 2 - HUM_HOPS, HUM_HOPS)
    levels = []
    for start in range(0, wave.size - size + 1, size // 4):
        power = np.abs(np.fft.rfft(wave[start : start + size] * window)) ** 2 + 1e-20
        levels.append(np.log10(power[lines] / power[lines + HUM_HOPS // 2]).mean())
    return float(10 * np.mean(levels))


def noise_floor(wave: Wave) -> float:
    """The level that 5 % of the frames stay under: what is heard between the words.

    Args:
        wave: [samples]; frames of 1024, 256 apart, one frame if it is shorter.

    Returns:
        dB, the frame's RMS over full scale; -120 for digital silence.
    """
    wide = wave.astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(wide, min(FRAME, wide.size))[::HOP]
    levels = np.sqrt(np.einsum("ij,ij->i", frames, frames) / frames.shape[1])
    return float(20 * np.log10(max(SILENCE, np.percentile(levels, QUIETEST))))


def peak(wave: Wave) -> float:
    """The largest magnitude of audio [samples]; above 1 a PCM file clips it."""
    return float(np.abs(wave).max())


def mos_predictor() -> Mos:
    """The opinion of listeners as a network predicts it, from one signal; higher is better.

    Returns:
        A function of audio [samples] and its rate in Hz; it gives 1 to 5, None for silence. What is
        longer than 15 s is scored in equal parts and averaged.

    Raises:
        InputError: The package ``distillmos`` is not installed, or cannot be imported.

    Source: Stahl and Gamper, "Distillation and Pruning for Scalable Self-Supervised
        Representation-Based Speech Quality Assessment", ICASSP 2025. Resampled to 16 kHz.
    """
    torch = optional("torch", "distillmos")
    with importable("torchaudio"):  # which only distillmos' own command line needs
        module = optional("distillmos", "distillmos")
    with redirect_stdout(io.StringIO()):  # it prints where its weights lie
        network = module.ConvTransformerSQAModel().eval()

    def predict(wave: Wave, rate: int) -> float | None:
        if not np.any(wave):
            return None
        with torch.inference_mode():
            parts = [torch.from_numpy(part)[None] for part in wideband(wave, rate)]
            return float(np.mean([float(network(part)) for part in parts]))

    return predict


def find_mos_predictor() -> tuple[Mos | None, str]:
    """The predictor and no note; or none, and how to get it."""
    try:
        return mos_predictor(), ""
    except InputError as error:
        return None, f"no predicted MOS: {error}"
