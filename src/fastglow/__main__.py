"""``python -m fastglow``: the ``fastglow`` command."""

from fastglow.cli.main import run

run()
