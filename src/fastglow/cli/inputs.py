"""From what the user names to pairs of input and output files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastglow.errors import InputError

MEL_SUFFIXES = (".npy", ".npz", ".pt", ".safetensors")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


@dataclass(frozen=True, slots=True)
class Task:
    """One file to make from one file."""

    source: Path
    target: Path

    @property
    def is_audio(self) -> bool:
        """Whether the source is audio rather than a mel."""
        return self.source.suffix.lower() in AUDIO_SUFFIXES


def read_list(path: Path) -> list[Path]:
    """The paths in a text file, one a line; what follows a ``|`` is ignored.

    A relative path is looked for beside the working folder, then beside the list.

    Raises:
        InputError: The list cannot be read or names no file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
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


def plan_tasks(
    sources: Iterable[Path], out: Path, suffix: str, accepted: tuple[str, ...]
) -> list[Task]:
    """Where each input goes.

    Args:
        sources: Files and folders; a folder stands for every accepted file in it.
        out: A folder, or a file name if there is one input file and ``out`` has a suffix.
        suffix: Of the outputs, for example ".wav".
        accepted: Suffixes of inputs.

    Raises:
        InputError: Nothing to do, a missing or unknown file, or two inputs for one output.
    """
    sources = list(sources)
    if not sources:
        raise InputError("nothing to do: name at least one file or folder")
    single = len(sources) == 1 and not sources[0].is_dir() and out.suffix and not out.is_dir()
    tasks = []
    for source in sources:
        if source.is_dir():
            inside = [p for p in sorted(source.rglob("*")) if p.suffix.lower() in accepted]
            if not inside:
                raise InputError(f"{source}: the folder holds no {', '.join(accepted)} file")
            tasks += [Task(p, out / p.relative_to(source).with_suffix(suffix)) for p in inside]
            continue
        if not source.exists():
            raise InputError(f"{source}: no such file or folder")
        if source.suffix.lower() not in accepted:
            raise InputError(f"{source}: cannot tell what this is; expected {', '.join(accepted)}")
        target = out if single else out / source.with_suffix(suffix).name
        tasks.append(Task(source, target))
    _refuse_collisions(tasks)
    return tasks


def _refuse_collisions(tasks: list[Task]) -> None:
    seen: dict[Path, Path] = {}
    for task in tasks:
        other = seen.setdefault(task.target, task.source)
        if other is not task.source:
            raise InputError(
                f"{other} and {task.source} would both be written to {task.target}; "
                "rename one or use two output folders"
            )
        if task.target.exists() and task.target.samefile(task.source):
            raise InputError(f"{task.source}: the output would overwrite the input")
