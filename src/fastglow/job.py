"""A corpus's work as one value, so that every process that is given it does the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastglow.arguments import Manner
from fastglow.atomic import make_folder
from fastglow.audio import (
    WriteReport,
    convert_mel,
    diagnose,
    mel_spectrogram,
    read_audio,
    write_audio,
)
from fastglow.audio.files import AUDIO_SUFFIXES
from fastglow.audio.match import MelMatcher, match_strength
from fastglow.audio.stored import StoredMel, open_mel
from fastglow.checkpoint import Weights, load_weights
from fastglow.corpus import AHEAD, Corpus, Outcome
from fastglow.engines.choose import choose_engine
from fastglow.errors import InputError
from fastglow.long import vocode_long
from fastglow.vocoder import Float32, Vocoder
from fastglow.voices import find_voice

LONG = 50_000  # frames, 10 minutes: longer mels are computed and written part by part
TOGETHER = {"cpu": 2000, "cuda": 16_000}  # frames: 23 s, and a whole pass of the CUDA engine
GROUPS = {"cpu": 1, "cuda": 2}  # of so many frames computed at a time

Warn = Callable[[str], None]
# Audio [samples], and the mel [n_mel, frames] that it was made from.
Spoken = tuple[Float32, Float32]


@dataclass(frozen=True, slots=True)
class Task:
    """One file to make from one file."""

    source: Path
    target: Path

    @property
    def is_audio(self) -> bool:
        """Whether the source is audio rather than a mel."""
        return self.source.suffix.lower() in AUDIO_SUFFIXES


@dataclass(frozen=True, slots=True)
class Written:
    """What was written for a task.

    Attributes:
        samples: How many.
        peak: Largest magnitude before any clipping; 1 is full scale.
        clipped: Samples over full scale that were set to full scale.
        size: Bytes of the file.
    """

    samples: int
    peak: float
    clipped: int
    size: int


Done = Outcome[Task, Written]
Outcomes = Generator[Done, None, None]  # closed, it leaves what is under way
Run = Callable[[Sequence[Task], Warn], Outcomes]


@dataclass(frozen=True, slots=True)
class Facts:
    """What of a model and a device decides the samples.

    Attributes:
        voice: The checkpoint as given, and its sha256 ("" for loose .npy files).
        device: "cpu" or "cuda".
        precision: That which runs, never "auto".
        conditioning: The form that runs, never "auto".
        sampling_rate: Hz.
        hop_length: Audio samples a mel frame.
    """

    voice: str
    sha256: str
    device: str
    precision: str
    conditioning: str
    sampling_rate: int
    hop_length: int

    @classmethod
    def of(cls, weights: Weights, device: str, precision: str, conditioning: str) -> Facts:
        """The facts of a model on a device."""
        origin, config = weights.provenance, weights.config
        kind = device.partition(":")[0]
        rate, hop = config.sampling_rate, config.hop_length
        return cls(origin.path, origin.sha256, kind, precision, conditioning, rate, hop)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How each file is treated: the arguments of `Vocoder.load` and of `Vocoder.synthesize`.

    Attributes:
        mel_scale: Convention of the mels.
        subtype: Of the audio files.
        match_mel: Of files; None: 1 for audio, whose mels are recordings', and 0 for mels, which
            may be smoother than speech.
        together: Frames computed at once; 0: what suits the device.
    """

    model: str | None = None
    device: str = "auto"
    precision: str = "auto"
    conditioning: str = "auto"
    threads: int | None = None
    hop: int | None = None
    rate: int | None = None
    dialect: str | None = None
    sigma: float = 0.6
    seed: int = 0
    denoise: float = 0.0
    match_mel: float | None = None
    mel_scale: str = "ln"
    subtype: str = "PCM_16"
    together: int = 0

    @property
    def manner(self) -> Manner:
        """How it speaks from a mel."""
        return Manner(sigma=self.sigma, denoise=self.denoise, match_mel=self.match_mel or 0.0)

    def facts(self, *, ask_torch: bool = True) -> Facts:
        """What would run here, found out without loading an engine.

        Args:
            ask_torch: See :func:`fastglow.engines.choose.choose_engine`.

        Raises:
            CheckpointError: The checkpoint cannot be read.
            InputError: There is no such voice, file, device or precision.
            EngineError: The device cannot be used here.
        """
        weights = load_weights(
            find_voice(self.model), hop=self.hop, rate=self.rate, dialect=self.dialect
        )
        form: Any = self.conditioning
        choice = choose_engine(
            weights.config, self.device, self.precision, form, ask_torch=ask_torch
        )
        return Facts.of(weights, choice.device, choice.precision, choice.conditioning)

    def fixed(self, facts: Facts) -> Recipe:
        """With nothing left open that rounding depends on, so that all processes agree."""
        return replace(self, precision=facts.precision, conditioning=facts.conditioning)

    def load(self) -> Job:
        """The job, ready to run.

        Raises:
            CheckpointError: The checkpoint cannot be read.
            InputError: There is no such voice, file, device or precision.
            EngineError: The engine cannot run here.
        """
        precision: Any = self.precision  # checked by load
        conditioning: Any = self.conditioning
        vocoder = Vocoder.load(
            self.model,
            device=self.device,
            precision=precision,
            conditioning=conditioning,
            threads=self.threads,
            hop=self.hop,
            rate=self.rate,
            dialect=self.dialect,
        )
        if self.match_mel:
            MelMatcher(vocoder.config)  # refuses a model that cannot be matched, before any file
        return Job(self, vocoder)

    def settings(self, facts: Facts) -> dict[str, object]:
        """All that decides what is in the files, by name."""
        names = ("sigma", "seed", "denoise", "mel_scale", "subtype")
        matched = {
            "match_mel": self.manner["match_mel"],
            "match_audio": 1.0 if self.match_mel is None else self.match_mel,  # where it can be
        }
        return asdict(facts) | {name: getattr(self, name) for name in names} | matched


@dataclass(frozen=True, slots=True)
class Job:
    """A recipe with its vocoder loaded."""

    recipe: Recipe
    vocoder: Vocoder

    @property
    def facts(self) -> Facts:
        """What runs."""
        engine = self.vocoder.engine
        return Facts.of(self.vocoder.weights, engine.device, engine.precision, engine.conditioning)

    def run(
        self, tasks: Iterable[Task], warn: Warn, *, worker: str = "", ahead: int = AHEAD
    ) -> Outcomes:
        """Every task's outcome as it becomes known.

        Args:
            tasks: Drawn as they are needed.
            warn: Is told of mels that look wrong, from other threads.
            worker: A name for who computes; by default the device's.
            ahead: How many files may be read before they are computed.

        Raises:
            OutputError: The outputs' place takes no more; what was written before is whole.
        """
        frames = min(self.recipe.together or TOGETHER[self._kind], LONG)  # longer ones: alone
        read = partial(self._read, warn=warn)
        corpus = Corpus(
            read, self._synthesize, self._write, frames, ahead, self._alone, GROUPS[self._kind]
        )
        for outcome in corpus.run(tasks):
            yield replace(outcome, worker=worker or self.vocoder.engine.device)

    @property
    def _kind(self) -> str:
        return "cpu" if self.vocoder.engine.device == "cpu" else "cuda"

    def _read(self, task: Task, warn: Warn) -> Float32 | StoredMel:
        """The task's mel, in natural log unless it stays on disk; warns if it looks like none."""
        config = self.vocoder.config
        if task.is_audio:
            wave, rate = read_audio(task.source, config.sampling_rate)
            return mel_spectrogram(wave, rate, config=config)
        mel = open_mel(task.source, config, self._longest)
        scale = self.recipe.mel_scale
        beginning = mel.read(0, LONG) if isinstance(mel, StoredMel) else mel[:, :LONG]
        diagnosis = diagnose(convert_mel(beginning, scale, config), config)
        if diagnosis.verdict == "constant":
            raise InputError(f"{task.source}: {diagnosis.summary}; nothing to say")
        if not diagnosis.ok:
            mend = f" (mend: {diagnosis.mend})" if diagnosis.mend else ""
            warn(f"{task.source}: {diagnosis.summary}{mend}")
        return mel if isinstance(mel, StoredMel) else convert_mel(mel, scale, config)

    def _manner(self, task: Task) -> Manner:
        """How the task is spoken."""
        asked, config = self.recipe.match_mel, self.vocoder.config
        strength = match_strength(asked, config, recorded=task.is_audio)
        return {**self.recipe.manner, "match_mel": strength}

    @property
    def _longest(self) -> int:
        """Frames from which on a mel is computed part by part, where the model allows it."""
        return LONG if self.vocoder.config.has_phases else sys.maxsize

    def _alone(self, task: Task, mel: Float32 | StoredMel) -> Written | None:
        """A long mel to its file in bounded memory; one on disk is in its own scale."""
        if mel.shape[1] <= self._longest:
            return None
        recipe = self.recipe
        report = vocode_long(
            self.vocoder,
            mel,
            task.target,
            scale=recipe.mel_scale,
            subtype=recipe.subtype,
            seed=recipe.seed,
            manner=self._manner(task),
        )
        return _written(report)

    def _synthesize(self, mels: Sequence[Any]) -> list[Spoken]:
        """What the network says to each mel [n_mel, frames]."""
        recipe = self.recipe
        lengths = [mel.shape[1] for mel in mels]
        batch = np.zeros((len(mels), mels[0].shape[0], max(lengths)), dtype=np.float32)
        for row, mel in zip(batch, mels, strict=True):
            row[:, : mel.shape[1]] = mel
        audio, samples = self.vocoder.synthesize(
            batch, seed=recipe.seed, sigma=recipe.sigma, lengths=lengths
        )
        spoken = zip(audio, samples, mels, strict=True)
        return [(row[:count].copy(), mel) for row, count, mel in spoken]

    def _write(self, task: Task, spoken: Spoken) -> Written:
        """Polishes, in the thread that writes: a GPU need not wait for it."""
        manner = self._manner(task)
        audio = self.vocoder.polish(*spoken, manner["denoise"], manner["match_mel"])
        make_folder(task.target.parent)
        rate, subtype = self.vocoder.sampling_rate, self.recipe.subtype
        return _written(write_audio(task.target, audio, rate, subtype=subtype))


def _written(report: WriteReport) -> Written:
    size = report.path.stat().st_size
    return Written(report.samples, report.peak, report.clipped, size)
