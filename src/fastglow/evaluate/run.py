"""From a recording's path to its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastglow.audio import mel_spectrogram, read_audio
from fastglow.config import WaveGlowConfig
from fastglow.errors import InputError
from fastglow.evaluate.griffin_lim import griffin_lim
from fastglow.evaluate.levels import Mos
from fastglow.evaluate.record import FileScores
from fastglow.evaluate.scores import BASELINE, ORIGINAL, VOICE, Judge

Float32 = NDArray[np.float32]
# A file's name and its mel [n_mel, frames] -> the voice's audio [samples], at the voice's rate.
Generate = Callable[[Path, Float32], Float32]

SLACK = 0.05  # seconds that a generated file may be longer or shorter without a warning


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is judged, and by what.

    Attributes:
        config: The voice's: its rate, its mel.
        generate: The voice.
        baseline: Whether to judge Griffin-Lim, too.
        seed: Of Griffin-Lim.
        mos: A predictor of opinions, if there is one.
    """

    config: WaveGlowConfig
    generate: Generate
    baseline: bool = True
    seed: int = 0
    mos: Mos | None = None

    def signals(self, source: Path, place: Path) -> tuple[dict[str, Float32], list[str]]:
        """The original and what the systems make of its mel, by system.

        Args:
            source: An audio file; any rate, channels are averaged.
            place: Its path under the folder that the user named.

        Returns:
            Audio [samples] by system, and what the user should be warned of.

        Raises:
            InputError: A file cannot be read.
            EngineError: The voice gave no finite audio.
        """
        original, rate = read_audio(source, self.config.sampling_rate)
        mel = mel_spectrogram(original, rate, config=self.config)
        audio = self.generate(place, mel)
        found = {ORIGINAL: original, VOICE: audio[: original.size]}
        if self.baseline:
            found[BASELINE] = griffin_lim(mel, self.config, original.size, self.seed)
        late = (audio.size - original.size) / rate  # a whole frame's more is usual
        if abs(late) < SLACK:
            return found, []
        side = "longer" if late > 0 else "shorter"
        return found, [f"{place}: generated {abs(late):.2f} s {side}; the rest is not judged"]

    def score(self, place: Path, signals: Mapping[str, Float32]) -> FileScores:
        """The scores of every system.

        Args:
            place: As for :meth:`signals`.
            signals: What that gave.
        """
        original = signals[ORIGINAL]
        judge = Judge(original, self.config, self.mos)
        scores = {
            system: judge.alone(wave) if system == ORIGINAL else judge.against(wave)
            for system, wave in signals.items()
        }
        return FileScores(place.as_posix(), original.size / self.config.sampling_rate, scores)


def generated_files(folder: Path, config: WaveGlowConfig, suffixes: tuple[str, ...]) -> Generate:
    """Audio made elsewhere, in place of a voice.

    Args:
        folder: Files of the originals' names, of any audio suffix, in the same sub-folders.
        config: Whose rate the audio is brought to.
        suffixes: Of audio files.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"--generated {folder}: no such folder")

    def generate(place: Path, mel: Float32) -> Float32:
        candidates = [(folder / place).with_suffix(suffix) for suffix in suffixes]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            raise InputError(f"{folder / place}: no generated file of this name")
        return read_audio(path, config.sampling_rate)[0]

    return generate
