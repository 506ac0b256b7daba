"""A run of training: from settings to a voice, through interruptions."""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from fastglow.atomic import make_folder
from fastglow.checkpoint import Provenance, Weights, save_safetensors
from fastglow.errors import EngineError, InputError
from fastglow.training.check import Recording
from fastglow.training.interrupt import Interrupt
from fastglow.training.journal import Journal
from fastglow.training.network import InverseNetwork
from fastglow.training.settings import Settings
from fastglow.training.start import difference, make_segments
from fastglow.training.team import Team
from fastglow.training.trainer import Trainer
from fastglow.training.validation import Validation

if TYPE_CHECKING:
    from fastglow.training.board import Board

STATE, VOICE, CHECKPOINTS = "state.pt", "voice", "checkpoints"
LOG, BOARD = "log.jsonl", "tensorboard"
LOOK_EVERY = 10  # steps between looks at what the device counts: a look waits for the device
GIVE_UP = 20  # steps in a row that are not finite


class Display(Protocol):
    """Where a run tells how it goes."""

    def step(self, done: int, losses: Mapping[str, float] | None) -> None:
        """A step is done; losses come now and then."""

    def say(self, message: str) -> None:
        """Something that the user should read."""


class Outcome(NamedTuple):
    """How a run ended: steps done, those of them that were skipped, and whether it was stopped."""

    done: int
    skipped: int
    stopped: bool


def check_folder(out: Path, fresh: bool) -> None:
    """Refuse a folder whose contents a run would replace.

    Args:
        out: The folder to write.
        fresh: Whether the user wants to start anew.

    Raises:
        InputError: There is an earlier run and ``fresh``, or a voice without the run's state.
    """
    if fresh and (out / STATE).exists():
        raise InputError(
            f"{out}: holds an earlier run; leave out --fresh to go on with it, or name another "
            "folder with --out"
        )
    if (out / VOICE).exists() and not (out / STATE).exists():
        raise InputError(
            f"{out / VOICE}: a voice without the {STATE} that it was trained from; name another "
            "folder with --out"
        )


class Run:
    """Training with its files.

    Args:
        settings: What to do.
        network: As :func:`fastglow.training.start.start_network` makes it.
        out: The folder to write; a state in it is gone on from.
        recordings: To train on.
        held_out: To validate on; may be empty.
        team: This process among the others.
        display: Where to tell how it goes.

    Raises:
        InputError: The folder holds the state of another model, or a damaged one.
    """

    def __init__(
        self, settings: Settings, network: InverseNetwork, out: Path,
        recordings: Sequence[Recording], held_out: Sequence[Recording], team: Team,
        display: Display,
    ) -> None:  # fmt: skip
        self.settings, self.out, self.team, self.display = settings, out, team, display
        train, model = settings.train, network.config
        margin = model.mel.n_fft // 2
        segments = make_segments(recordings, settings.data, train.segment, margin, team.device)
        self.trainer = Trainer(
            network.to(team.device), segments, train, team.rank, team.world,
            objective=settings.objective,
        )  # fmt: skip
        self._resume()
        team.align(*self.trainer.shared())
        self.journal: Journal | None = None
        self.board: Board | None = None
        self.validation: Validation | None = None
        self.logged = (time.monotonic(), self.trainer.done)
        if team.leads:
            make_folder(out)
            self.journal = Journal(out / LOG, self.trainer.done)
            self.board = self._open_board() if settings.run.tensorboard else None
            if held_out:
                count = settings.run.validation_segments
                self.validation = Validation(
                    held_out, model, train, count, team.device, objective=settings.objective
                )

    def _resume(self) -> None:
        place = self.out / STATE
        if not place.exists():
            return
        before = self.trainer.load(place)
        if self.team.leads:
            train = self.settings.train
            done = self.trainer.done
            if done >= train.steps:
                self.display.say(f"all {done} steps are done; raise train.steps to go on")
            else:
                self.display.say(f"going on from step {done} of {train.steps} in {place}")
            changed = difference(asdict(train), before)
            if changed:
                self.display.say(f"settings have changed: {changed}")

    def _open_board(self) -> Board | None:
        if importlib.util.find_spec("tensorboard") is None:
            self.display.say("nothing for TensorBoard is written: pip install tensorboard")
            return None
        from fastglow.training.board import Board

        rate = self.trainer.network.config.sampling_rate
        return Board(self.out / BOARD, self.trainer.done, rate)

    def run(self) -> Outcome:
        """Train until all steps are done or a signal comes, then save.

        Raises:
            EngineError: Steps are not finite again and again; the last checkpoint is untouched.
        """
        trainer, steps, due, stop = self.trainer, self.settings.train.steps, False, False
        began = trainer.done
        try:
            with Interrupt() as interrupt:
                while trainer.done < steps and not stop:
                    trainer.step()
                    self._tell()
                    stop = self._stop(interrupt)
                    due = due or trainer.done % self.settings.run.checkpoint_every == 0
                    if due and not stop and trainer.done < steps and not self._skipped()[1]:
                        self._save()
                        due = False
                if trainer.done > began:
                    self._save()
        finally:
            if self.board:
                self.board.close()
        return Outcome(trainer.done, self._skipped()[0], trainer.done < steps)

    def _stop(self, interrupt: Interrupt) -> bool:
        """Whether every process is to stop here; looks at the count of bad steps on the way."""
        look = self.trainer.done % LOOK_EVERY == 0
        if look and self._skipped()[1] >= GIVE_UP:
            raise EngineError(self._cause())
        if self.team.world == 1:
            return interrupt.asked
        return look and self.team.any(interrupt.asked)

    def _skipped(self) -> tuple[int, int]:
        total, in_a_row = self.trainer.skipped.tolist()
        return total, in_a_row

    def _cause(self) -> str:
        trainer, state = self.trainer, self.out / STATE
        loss, in_a_row = float(trainer.terms["loss"]), self._skipped()[1]
        if not bool(torch.isfinite(trainer.weights).all()):
            cause = "the weights are not finite: the checkpoint that they come from is damaged"
        else:
            what = f"the loss is {loss:.4g}" + (", its gradient not" if abs(loss) < 1e30 else "")
            cause = (
                f"{what}; most often the learning rate ({trainer.config.learning_rate:g}) is too "
                "high: lower train.learning_rate"
            )
        kept = f"{state} is that of the last good checkpoint" if state.exists() else "nothing saved"
        return f"step {trainer.done}: {in_a_row} steps in a row were not finite; {cause} ({kept})"

    def _tell(self) -> None:
        """Log and validate when it is time."""
        run, done = self.settings.run, self.trainer.done
        last = done == self.settings.train.steps
        if not self.team.leads:
            return
        losses = self._log(done) if last or done % run.log_every == 0 else None
        self.display.step(done, losses)
        if self.validation and (last or done % run.validate_every == 0):
            self._validate(self.validation, done)

    def _log(self, done: int) -> dict[str, float]:
        now, (then, before) = time.monotonic(), self.logged
        self.logged = (now, done)
        losses = {name: float(value) for name, value in self.trainer.terms.items()}
        values = {
            **losses,
            "learning_rate": float(self.trainer.learning_rate),
            "skipped": self._skipped()[0],
            "steps_per_second": round((done - before) / max(now - then, 1e-9), 3),
        }
        if self.journal:
            self.journal.write("train", done, values)
        if self.board:
            self.board.scalars("train", values, done)
        return {**losses, "skipped": values["skipped"]}

    def _validate(self, validation: Validation, done: int) -> None:
        network = self.trainer.averaged()
        scores = validation.scores(network)
        if self.journal:
            self.journal.write("validation", done, scores)
        if self.board:
            self.board.scalars("validation", scores, done)
            self.board.clip(validation.clip(network), done)
        shown = f"loss {scores['loss']:.4f}, log-mel L1 {scores['log_mel_l1']:.4f}"
        self.display.say(f"step {done}: held-out {shown}")

    def voice(self) -> Weights:
        """The averaged weights."""
        note = f"trained by fastglow, {self.settings.objective}, {self.trainer.done} steps"
        network = self.trainer.averaged()
        origin = Provenance(VOICE, "", "memory", note)
        return Weights(network.config, network.to_tensors(), origin)

    def _save(self) -> None:
        """Write voice, checkpoint and state, each whole or not at all, the state last."""
        if not self.team.leads:
            return
        weights, keep = self.voice(), self.settings.run.keep
        save_safetensors(weights, self.out / VOICE)
        if keep:
            folder = self.out / CHECKPOINTS
            save_safetensors(weights, folder / f"step-{self.trainer.done:08d}")
            for old in sorted(folder.glob("step-*"))[:-keep]:
                shutil.rmtree(old)
        self.trainer.save(self.out / STATE)
