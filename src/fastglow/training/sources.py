"""The recordings that a user names: files, folders of them, lists with weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastglow.audio.files import AUDIO_SUFFIXES
from fastglow.errors import InputError

LISTS = (".txt", ".tsv")
PATH_COLUMNS = ("path", "file")  # of a table whose first line names its columns


@dataclass(frozen=True, slots=True)
class Source:
    """A recording to read, drawn ``weight`` times as often as one of weight 1."""

    path: Path
    weight: float = 1.0


def find_sources(named: Iterable[str], base: Path) -> list[Source]:
    """The recordings named, each once.

    Args:
        named: Audio files, folders (every audio file in them), or lists: .txt with a path a line
            (what follows a ``|`` is ignored), .tsv with a path and, if wanted, a weight a line.
        base: The folder that relative names start from; in a list it is the list's own.

    Raises:
        InputError: A name is none of those, or a list cannot be understood.
    """
    found: dict[Path, Source] = {}
    for name in named:
        for source in _expand(base / Path(name).expanduser()):
            found.setdefault(source.path.resolve(), source)
    return list(found.values())


def _expand(place: Path) -> Iterator[Source]:
    suffix = place.suffix.lower()
    if place.is_dir():
        paths = sorted(
            p for p in place.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file()
        )
        if not paths:
            raise InputError(f"{place}: the folder holds no {', '.join(AUDIO_SUFFIXES)} file")
        yield from map(Source, paths)
    elif suffix in AUDIO_SUFFIXES:
        yield Source(place)  # whether it can be read is the check's to tell
    elif suffix in LISTS:
        yield from _read_list(place)
    elif not place.exists():
        raise InputError(f"{place}: no such file or folder")
    else:
        raise InputError(
            f"{place}: cannot tell what this is; expected a folder or "
            f"{', '.join(AUDIO_SUFFIXES + LISTS)}"
        )


def _read_list(path: Path) -> Iterator[Source]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the list: {error}") from None
    table = path.suffix.lower() == ".tsv"
    name_column, weight_column = 0, 1
    numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip()]
    if table and numbered:
        head = [cell.strip().lower() for cell in numbered[0][1].split("\t")]
        column = next((c for c in PATH_COLUMNS if c in head), None)
        if column:
            name_column = head.index(column)
            weight_column = head.index("weight") if "weight" in head else len(head)
            numbered = numbered[1:]
    entries = [(i, line) for i, line in numbered if not line.lstrip().startswith("#")]
    if not entries:
        raise InputError(f"{path}: the list names no file; expected one path a line")
    for number, line in entries:
        cells = line.split("\t") if table else [line.split("|")[0]]
        if len(cells) <= name_column:
            raise InputError(f"{path}:{number}: has no column {name_column + 1} with a path")
        has_weight = table and len(cells) > weight_column
        weight = _weight(cells[weight_column], f"{path}:{number}") if has_weight else 1.0
        yield Source(path.parent / Path(cells[name_column].strip()).expanduser(), weight)


def _weight(text: str, where: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise InputError(f"{where}: weight {text.strip()!r}; expected a number over 0")
    return weight
