"""Audio and mels: in and out of files, spectrograms, the denoiser, mel matching, the mel doctor."""

from fastglow.audio.denoise import Denoiser
from fastglow.audio.doctor import Diagnosis, diagnose
from fastglow.audio.files import read_audio
from fastglow.audio.match import MelMatcher
from fastglow.audio.mel import mel_spectrogram
from fastglow.audio.mels import check_mel, read_mel, read_raw_mel, write_mel
from fastglow.audio.scales import SCALES, check_mel_scale, convert_mel
from fastglow.audio.writing import WriteReport, check_audio_format, open_audio, write_audio

__all__ = [
    "SCALES",
    "Denoiser",
    "Diagnosis",
    "MelMatcher",
    "WriteReport",
    "check_audio_format",
    "check_mel",
    "check_mel_scale",
    "convert_mel",
    "diagnose",
    "mel_spectrogram",
    "open_audio",
    "read_audio",
    "read_mel",
    "read_raw_mel",
    "write_audio",
    "write_mel",
]
