"""fastglow: the fastest WaveGlow vocoder, from Python."""

__version__ = "0.1.0"
