"""The vocoder: mel spectrograms in, speech out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from fastglow import noise as noise_module
from fastglow import streaming
from fastglow.arguments import as_float32, at_least, check_mel, check_settings
from fastglow.checkpoint import Weights, load_weights
from fastglow.config import WaveGlowConfig
from fastglow.engines.base import Engine, Noise
from fastglow.engines.choose import choose_engine
from fastglow.errors import EngineError, InputError
from fastglow.noise import SeededNoise
from fastglow.plan import Conditioning
from fastglow.voices import find_voice

if TYPE_CHECKING:
    from fastglow.audio.denoise import Denoiser
    from fastglow.audio.match import MelMatcher

Float32 = NDArray[np.float32]
Seed = int | Sequence[int]
Precision = Literal["auto", "fp16", "bf16", "tf32", "fp32", "int8"]

BIAS_FRAMES = 88  # of silence, from which the denoiser learns the model's own hum


class Vocoder:
    """A WaveGlow ready to speak. Safe to call from several threads.

    Attributes:
        config: The model's hyperparameters.
        weights: The model, with its provenance.
        engine: What runs it.
    """

    def __init__(self, weights: Weights, engine: Engine) -> None:
        """Use :meth:`load`; this is for engines made by hand."""
        self.weights, self.engine = weights, engine
        self.config: WaveGlowConfig = weights.config
        self._learnt: Denoiser | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        conditioning: Conditioning | Literal["auto"] = "auto",
        threads: int | None = None,
        hop: int | None = None,
        rate: int | None = None,
        dialect: str | None = None,
    ) -> Vocoder:
        """Load a checkpoint or a shipped voice.

        Args:
            source: A .pt or .pth file, a .safetensors file, a folder, or the name of a
                shipped voice; the default voice if left out.
            device: "cuda", "cuda:1", "cpu", or "auto": a GPU that can be used, else the CPU.
            precision: On a GPU "fp16", "bf16", "tf32" or "fp32"; on a CPU "fp32",
                "bf16" (half the time, on processors with AVX-512 BF16) or "int8" (a third, with
                AVX-512 VNNI). "auto" is fp16 or fp32.
            conditioning: The form of the conditioning, which rounding depends on. "auto" takes
                the phase matrices unless they would be larger than 2.5 GB on a CPU, or a quarter
                of the memory of a GPU.
            threads: CPU threads; by default all that the process may use.
            hop: Audio samples a mel frame, where the checkpoint does not say.
            rate: Sampling rate in Hz, where the checkpoint does not say.
            dialect: "glow" or "glow_old", for a bare state_dict that cannot say.

        Raises:
            CheckpointError: The checkpoint cannot be read.
            InputError: There is no such voice, file, device or precision.
            EngineError: The engine cannot run here.
        """
        if threads is not None and threads < 1:
            raise InputError(f"threads={threads}: expected 1 or more")
        weights = load_weights(find_voice(source), hop=hop, rate=rate, dialect=dialect)
        choice = choose_engine(weights.config, device, precision, conditioning)
        return cls(weights, choice.load(weights, threads))

    @property
    def sampling_rate(self) -> int:
        """Hz."""
        return self.config.sampling_rate

    @property
    def hop_length(self) -> int:
        """Audio samples a mel frame."""
        return self.config.hop_length

    @overload
    def synthesize(
        self,
        mel: Any,
        *,
        sigma: float = ...,
        seed: Seed = ...,
        noise: Any = ...,
        lengths: None = ...,
        denoise: float = ...,
        match_mel: float = ...,
    ) -> Float32: ...

    @overload
    def synthesize(
        self,
        mel: Any,
        *,
        sigma: float = ...,
        seed: Seed = ...,
        noise: Any = ...,
        lengths: Sequence[int] | NDArray[np.integer],
        denoise: float = ...,
        match_mel: float = ...,
    ) -> tuple[Float32, NDArray[np.int64]]: ...

    def synthesize(
        self,
        mel: Any,
        *,
        sigma: float = 0.6,
        seed: Seed = 0,
        noise: Any = None,
        lengths: Sequence[int] | NDArray[np.integer] | None = None,
        denoise: float = 0.0,
        match_mel: float = 0.0,
    ) -> Float32 | tuple[Float32, NDArray[np.int64]]:
        """Speech from a mel spectrogram.

        Args:
            mel: [n_mel, frames] or [B, n_mel, frames], natural log, numpy or torch.
            sigma: Scale of the noise; 0.6 is usual, lower is smoother and duller.
            seed: One integer (every row gets the same noise) or one for each row.
            noise: [samples] or [B, samples] standard normal, in place of the seed's.
            lengths: [B] frames of each row of a padded batch; what is past them is not read.
            denoise: Strength of the bias denoiser; 0 is off, 0.01 to 0.1 is usual.
            match_mel: How much of what the audio's mel is off is taken out again, band by band
                and frame by frame, the phase kept; 0 is off, 1 is best for mels of recordings.

        Returns:
            float32 audio [samples] or [B, samples], nominally within [-1, 1]; with ``lengths``
            also the samples [B] of each row, past which a row is zero. A row is bit for bit
            what the same mel gives alone.

        Raises:
            InputError: A shape, type or value is unusable.
            EngineError: The audio is not finite.
        """
        mels = as_float32(mel, "the mel")
        batch = mels[None] if mels.ndim == 2 else mels
        frames = check_mel(batch, mels.shape, lengths, self.config)
        check_settings(sigma=sigma, denoise=denoise, match_mel=match_mel)
        if match_mel:
            self._matcher()  # refuses a model that cannot be matched, before the network runs
        drawn = self._noise(seed, noise, sigma, batch, frames)
        try:
            audio = self.engine.infer(batch, drawn, frames)
        except MemoryError:
            raise EngineError(
                f"no memory for {len(batch)} x {max(frames)} frames; use smaller batches"
            ) from None
        samples = np.array([self.config.samples(n) for n in frames], dtype=np.int64)
        if denoise or match_mel:
            for row, count, own, n in zip(audio, samples, batch, frames, strict=True):
                row[:count] = self.polish(row[:count], own[:, :n], denoise, match_mel)
        if lengths is not None:
            return audio, samples
        return audio[0] if mels.ndim == 2 else audio

    def polish(self, audio: Float32, mel: Float32, denoise: float, match_mel: float) -> Float32:
        """What :meth:`synthesize` does after the network, on the CPU.

        Args:
            audio: [samples] The network's.
            mel: [n_mel, frames] What it was made from.
            denoise: As for :meth:`synthesize`.
            match_mel: As for :meth:`synthesize`.

        Returns:
            float32 [samples].
        """
        if denoise:
            audio = self._denoiser()(audio, denoise)
        return self._matcher()(audio, mel, match_mel) if match_mel else audio

    def stream(
        self,
        mel_chunks: Iterable[Any],
        *,
        sigma: float = 0.6,
        seed: int = 0,
        frames: int = 128,
        lookahead: int | None = None,
        denoise: float = 0.0,
        match_mel: float = 0.0,
    ) -> Iterator[Float32]:
        """Speech while the mel is still coming in: the very samples of the whole utterance.

        Args:
            mel_chunks: [n_mel, frames] each, of any lengths, natural log, numpy or torch.
            sigma: Scale of the noise.
            seed: As for :meth:`synthesize`.
            frames: How many new frames are waited for before they are computed together: fewer
                give audio sooner, more cost less.
            lookahead: How many frames must have come past a frame before its audio is given.
                None: as many as it depends on (96 in a published model, 1.1 s), which makes the
                samples of the whole. With fewer the audio comes sooner and is another: what lies
                beyond counts as if the utterance ended there, so that the mel's cuts matter, too.
            denoise: As for :meth:`synthesize`; the audio then comes up to 1,024 samples later.
            match_mel: As for :meth:`synthesize`; the audio comes a window of the mel later, after
                the denoiser's.

        Yields:
            float32 audio [samples], as it becomes known.

        Raises:
            InputError: A chunk or an argument is unusable.
            EngineError: The audio is not finite.
        """
        check_settings(sigma=sigma, denoise=denoise, match_mel=match_mel)
        noise = SeededNoise((noise_module.check_seed(seed),), sigma)
        at_least("frames", frames, 1)
        if lookahead is not None:
            at_least("lookahead", lookahead, 0)
        chunks = streaming.checked(mel_chunks, self.config.n_mel_channels)
        filters: list[streaming.Filter] = []
        if denoise:
            filters.append(self._denoiser().begin(denoise))
        if match_mel:
            matching = self._matcher().begin(match_mel)
            filters.append(matching)
            chunks = streaming.heard(chunks, matching)
        audio = streaming.stream(self.engine.stream(noise, lookahead), chunks, frames)
        return streaming.filtered(audio, filters) if filters else audio

    def _noise(
        self, seed: Seed, noise: Any, sigma: float, batch: Float32, frames: list[int]
    ) -> Noise:
        """Scaled noise [B, samples], or seeds that the engine draws it from."""
        shape = (len(batch), self.config.samples(batch.shape[2]))
        if noise is not None:
            given = as_float32(noise, "the noise")
            if given.shape not in (shape, shape[1:]):
                raise InputError(
                    f"the noise has shape {list(given.shape)}; expected {list(shape[1:])} "
                    f"or {list(shape)}"
                )
            rows = np.asarray(np.broadcast_to(given, shape))
            for row, count in zip(rows, frames, strict=True):
                if not np.isfinite(row[: self.config.samples(count)]).all():
                    raise InputError("the noise holds NaN or infinite values")
            return np.float32(sigma) * rows
        many = isinstance(seed, list | tuple | np.ndarray)
        seeds: list[Any] = list(seed) if many else [seed] * shape[0]  # type: ignore[arg-type]
        if len(seeds) != shape[0]:
            raise InputError(f"{len(seeds)} seeds for a batch of {shape[0]} rows")
        return SeededNoise(tuple(noise_module.check_seed(one) for one in seeds), sigma)

    def _matcher(self) -> MelMatcher:
        from fastglow.audio.match import MelMatcher

        return MelMatcher(self.config)

    def _denoiser(self) -> Denoiser:
        from fastglow.audio.denoise import Denoiser

        with self._lock:
            if self._learnt is None:
                silence = np.zeros((self.config.n_mel_channels, BIAS_FRAMES), dtype=np.float32)
                self._learnt = Denoiser(self.synthesize(silence, sigma=0.0))
        return self._learnt
