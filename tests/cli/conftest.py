"""The command line, run within this process."""

import sys

import pytest

from fastglow.cli import main


@pytest.fixture
def fastglow_command(monkeypatch, capsys):
    """Runs `fastglow ...`: (status, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fastglow", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main.run()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return call
