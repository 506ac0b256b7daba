"""From what the user names to pairs of input and output files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from fastglow.audio.files import AUDIO_SUFFIXES
from fastglow.audio.mels import SUFFIXES
from fastglow.errors import InputError
from fastglow.job import Task

FILES = (*AUDIO_SUFFIXES, *SUFFIXES, ".raw")  # what no folder's name ends in


def read_list(path: Path) -> list[Path]:
    """The paths in a text file, one a line; what follows a ``|`` is ignored.

    A relative path is looked for beside the working folder, then beside the list.

    Raises:
        InputError: The list cannot be read or names no file.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the list: {error}") from None
    found = []
    for line in lines:
        name = line.split("|")[0].strip()
        if name and not name.startswith("#"):
            here = Path(name)
            found.append(here if here.exists() else path.parent / name)
    if not found:
        raise InputError(f"{path}: the list names no file; expected one path a line")
    return found


def find_sources(
    named: Iterable[Path], accepted: tuple[str, ...], leave_out: Path | None = None
) -> list[tuple[Path, Path]]:
    """The files that the user means, each with its path under the folder that was named.

    Args:
        named: Files and folders; a folder stands for every accepted file in it.
        accepted: Suffixes.
        leave_out: A folder whose files are no inputs: the outputs of an earlier run.

    Raises:
        InputError: Nothing was named, none of it exists, or a file is of an unknown kind.
    """
    sources = list(named)
    if not sources:
        raise InputError("nothing to do: name at least one file or folder")
    if not any(source.exists() for source in sources):
        raise InputError(f"{sources[0]}: no such file or folder")
    found = []
    for source in sources:
        if source.is_dir():
            inside = list(_walk(source, accepted, leave_out))
            if not inside:
                raise InputError(f"{source}: the folder holds no {', '.join(accepted)} file")
            found += [(path, path.relative_to(source)) for path in inside]
        elif source.suffix.lower() in accepted:
            found.append((source, Path(source.name)))  # a missing one fails when it is read
        elif not source.exists():
            raise InputError(f"{source}: no such file or folder")
        else:
            raise InputError(f"{source}: cannot tell what this is; expected {', '.join(accepted)}")
    return found


def _walk(folder: Path, accepted: tuple[str, ...], leave_out: Path | None) -> Iterator[Path]:
    """The accepted files of a folder and those below it, also of folders elsewhere by links."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}")

    real = folder.resolve()
    within, above = {real}, set(real.parents)  # of the folder and those that links led to

    def elsewhere(path: Path) -> bool:
        real = path.resolve()
        if real in above or not within.isdisjoint([real, *real.parents]):
            return False  # its files come under their own names
        within.add(real)
        above.update(real.parents)
        return True

    skipped = leave_out.resolve() if leave_out else None
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        paths = [Path(root) / name for name in sorted(folders)]
        paths = [path for path in paths if path.resolve() != skipped]
        folders[:] = [path.name for path in paths if not path.is_symlink() or elsewhere(path)]
        paths = [Path(root) / name for name in sorted(files)]
        yield from (path for path in paths if path.suffix.lower() in accepted)


def plan_tasks(
    sources: Iterable[Path],
    out: Path,
    suffix: str,
    accepted: tuple[str, ...],
    is_output: Callable[[Path], bool] = lambda path: False,
) -> list[Task]:
    """Where each input goes.

    Args:
        sources: Files and folders, as for :func:`find_sources`.
        out: A folder, or a file of that suffix if there is one input file.
        suffix: Of the outputs, for example ".wav".
        accepted: Suffixes of inputs.
        is_output: Whether a file that is there was made by an earlier run, and is no input.

    Raises:
        InputError: As :func:`find_sources`; or ``out`` is no folder; or two inputs have one
            output, or an output would replace an input.
    """
    sources = list(sources)
    found = find_sources(sources, accepted, leave_out=out)
    if out.suffix.lower() == suffix and not out.is_dir():
        if len(sources) > 1 or sources[0].is_dir():
            raise InputError(f"{out}: one file for several inputs; name a folder")
        return _checked([Task(sources[0], out)], is_output)
    _refuse_no_folder(out, suffix)
    tasks = [Task(source, out / place.with_suffix(suffix)) for source, place in found]
    return _checked(tasks, is_output)


def _refuse_no_folder(out: Path, suffix: str) -> None:
    above = next((path for path in (out, *out.parents) if path.exists()), Path())
    if not above.is_dir():
        raise InputError(f"{above}: is no folder; name a folder, or a file ending in {suffix}")
    if out.suffix.lower() in FILES and not out.exists():
        raise InputError(
            f"{out}: cannot write {out.suffix} here; name a file ending in {suffix}, or a folder"
        )


def _checked(tasks: list[Task], is_output: Callable[[Path], bool]) -> list[Task]:
    """The tasks without those of outputs; no two have one output, and none replaces an input."""
    targets = [_identity(task.target) for task in tasks]
    known = any(targets)  # else no input can be one of them
    sources = [_identity(task.source) if known else None for task in tasks]
    whole = list(zip(tasks, targets, sources, strict=True))
    # Of what is there already, other than itself
    makers = {target: task for task, target, source in whole if target and target != source}
    kept: list[Task] = []
    seen: dict[Path, Path] = {}
    for task, target, source in whole:
        maker = makers.get(source) if source else None
        if maker and is_output(task.source):
            continue
        if maker:
            raise InputError(
                f"{task.source}: is an input, and what is made of {maker.source} would overwrite "
                "it; write to another folder, or, if it is an output, add --skip-existing"
            )
        other = seen.setdefault(task.target, task.source)
        if other is not task.source:
            _refuse_collision(other, task)
        if target and target == source:
            raise InputError(f"{task.source}: the output would overwrite the input")
        kept.append(task)
    return kept


def _identity(path: Path) -> tuple[int, int] | None:
    """Of the file that a path leads to, under whatever name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refuse_collision(other: Path, task: Task) -> None:
    if other == task.source:
        raise InputError(f"{other}: is named twice")
    raise InputError(
        f"{other} and {task.source} would both be written to {task.target}; "
        "rename one or use two output folders"
    )


def shard_of(tasks: Sequence[Task], shard: str) -> list[Task]:
    """One process's part of the tasks.

    Args:
        tasks: All of them, in the same order in every process.
        shard: "i/n", i from 1 to n: every n-th task from the i-th on.

    Raises:
        InputError: It is no such text.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    first, count = (int(n) for n in match.groups()) if match else (0, 0)
    if not 1 <= first <= count:
        raise InputError(f"--shard {shard}: expected i/n with i from 1 to n, such as 1/4")
    return list(tasks[first - 1 :: count])
