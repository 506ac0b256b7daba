"""Training through the inverse: noise and mel in, audio out, spectral losses on the audio."""
