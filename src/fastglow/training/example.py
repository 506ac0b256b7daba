"""The settings file that ``fastglow train --example`` prints."""

from __future__ import annotations

from pathlib import Path


def example() -> str:
    """A settings file with every key, its meaning and its default."""
    return Path(__file__).with_name("example.toml").read_text(encoding="utf-8")
