"""Says what a file that is no WaveGlow looks like, so that the error can name it."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Tensor names (a pattern found in one of them each) that give a kind of model away.
_MODELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Tacotron 2", (r"decoder\.attention_rnn\.", r"encoder\.convolutions\.")),
    ("BigVGAN", (r"conv_pre\.", r"activation_post\.")),
    ("VITS", (r"enc_p\.", r"dec\.ups\.")),
    ("HiFi-GAN generator", (r"conv_pre\.", r"(^|\.)ups\.0\.", r"resblocks\.")),
    ("HiFi-GAN or MelGAN discriminator", (r"discriminators\.0\.",)),
    ("Parallel WaveGAN", (r"first_conv\.", r"last_conv_layers\.")),
    ("Vocos", (r"backbone\.convnext\.", r"head\.")),
    ("FastPitch", (r"pitch_predictor\.", r"duration_predictor\.")),
    ("FastSpeech", (r"length_regulator\.", r"decoder\.")),
    ("Glow-TTS", (r"encoder\.proj_m\.", r"decoder\.flows\.")),
    ("WaveRNN", (r"(^|\.)rnn1\.", r"(^|\.)I\.")),
    ("MelGAN generator", (r"(^|\.)generator\.\d+\.", r"weight_v$")),
)

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with git lfs pull"),
    (b"\x93NUMPY", "a single .npy array; a checkpoint of .npy files is given as their folder"),
    (b"RIFF", "a sound file; give the checkpoint"),
    (b"fLaC", "a sound file; give the checkpoint"),
    (b"\x1f\x8b", "compressed by gzip; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras?); WaveGlow checkpoints are PyTorch's"),
    (b"\x7fELF", "a program; give the checkpoint"),
)


def name_model(names: Iterable[str]) -> str | None:
    """The kind of model whose tensors have these names, if it is one that we know."""
    joined = list(names)[:100_000]
    for model, patterns in _MODELS:
        if all(any(re.search(p, name) for name in joined) for p in patterns):
            return model
    return None


def name_bytes(head: bytes) -> str | None:
    """What a file that starts with ``head`` is, with the mend, if it is no checkpoint."""
    if head[257:262] == b"ustar":
        return "a tar archive (or a checkpoint older than PyTorch 0.2); unpack it first"
    text = head[:256].lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, as when a download link has expired; download it again"
    return next((what for start, what in _STARTS if head.startswith(start)), None)
