"""Audio and mels: in and out of files, spectrograms, the denoiser, the mel doctor."""

from fastglow.audio.files import WriteReport, read_audio, write_audio
from fastglow.audio.mel import mel_spectrogram
from fastglow.audio.mels import check_mel, read_mel, read_raw_mel, write_mel

__all__ = [
    "WriteReport",
    "check_mel",
    "mel_spectrogram",
    "read_audio",
    "read_mel",
    "read_raw_mel",
    "write_audio",
    "write_mel",
]
