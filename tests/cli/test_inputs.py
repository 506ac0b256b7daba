"""From what the user names to inputs and outputs: no recording is lost, no file left out."""

from pathlib import Path

import numpy as np
import pytest

from fastglow.checkpoint import save_safetensors

from models import TINY, random_weights


@pytest.fixture
def cli(monkeypatch, tmp_path, fastglow_command):
    """`fastglow vocode ... -m model` beside an empty folder d."""
    save_safetensors(random_weights(TINY), tmp_path / "model", dtype="float32")
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: fastglow_command("vocode", "-m", "model", *arguments)


def mel(path: str, frames: int = 5) -> None:
    values = np.random.default_rng(frames).uniform(-9, -7, (TINY.n_mel_channels, frames))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values.astype(np.float32))


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_recordings_beside_their_mels_are_not_overwritten(cli, audio) -> None:
    mel("d/a.npy")
    audio("d/a.wav")
    before = contents("d")
    for arguments in (["d", "-o", "d"], ["d/a.npy", "d/a.wav", "-o", "d", "--journal", "j"]):
        status, _, err = cli(*arguments)
        assert status == 2
        assert "d/a.wav: is an input" in err
        assert "made of d/a.npy" in err
        assert contents("d") == before


def test_of_recordings_of_one_name_none_is_lost(cli, audio) -> None:
    for name in ("a.flac", "a.wav", "b.wav"):
        audio(f"d/{name}")
    before = contents("d")
    assert "made of d/a.flac would overwrite it" in cli("d", "-o", "d")[2]
    assert "would overwrite the input" in cli("d/b.wav", "-o", "d")[2]
    assert "d/b.wav: is named twice" in cli("d/b.wav", "d/b.wav")[2]
    assert contents("d") == before


def test_a_journal_knows_its_outputs_among_the_inputs(cli) -> None:
    mel("d/a.npy")
    assert cli("d", "-o", "d", "--journal", "j.jsonl")[0] == 0
    made = contents("d")
    mel("d/b.npy")
    status, out, _ = cli("d", "-o", "d", "--journal", "j.jsonl")
    assert (status, "1 skipped" in out) == (0, True)
    assert set(contents("d")) == {*made, "d/b.npy", "d/b.wav"}
    assert contents("d")["d/a.wav"] == made["d/a.wav"]
    assert cli("d", "-o", "d")[0] == 2  # without it nobody knows whose they are
    assert "2 skipped" in cli("d", "-o", "d", "--skip-existing")[1]


def test_killed_before_the_journal_knew_it_goes_on_without_what_is_there(cli) -> None:
    for name in "ab":
        mel(f"d/{name}.npy")
    arguments = ("d", "-o", "d", "--journal", "j.jsonl")
    assert cli(*arguments)[0] == 0
    made, journal = contents("d"), Path("j.jsonl").read_text().splitlines(keepends=True)
    Path("j.jsonl").write_text("".join(journal[:2]))  # b.wav is there, and not told
    mel("d/c.npy")
    status, _, err = cli(*arguments)
    assert (status, "--skip-existing" in err) == (2, True)
    assert cli(*arguments, "--skip-existing")[0] == 0
    found = contents("d")
    assert {path: found[path] for path in made} == made
    assert set(found) == {*made, "d/c.npy", "d/c.wav"}


def test_what_took_an_output_s_place_is_an_input(cli, audio) -> None:
    mel("d/a.npy")
    assert cli("d", "-o", "d", "--journal", "j.jsonl")[0] == 0
    audio("d/a.wav")
    before = contents("d")
    status, _, err = cli("d", "-o", "d", "--journal", "j.jsonl")
    assert (status, "d/a.wav: is an input" in err) == (2, True)
    assert contents("d") == before


def test_links_to_folders_elsewhere_are_followed(cli) -> None:
    """Not those that lead into the folder or above it, nor to one place twice."""
    mel("elsewhere/x.npy")
    mel("d/deep/y.npy")
    mel("beside.npy")
    for link, to in {
        "d/linked": "elsewhere",
        "d/linked-again": "elsewhere",
        "d/deep/back": "d",
        "d/up": ".",
        "elsewhere/round": "d/deep",
        "elsewhere/itself": "elsewhere",
    }.items():
        Path(link).symlink_to(Path(to).resolve())
    assert cli("d", "-o", "out")[0] == 0
    assert set(contents("out")) == {"out/linked/x.wav", "out/deep/y.wav"}


def test_a_link_to_itself_is_one_bad_file(cli) -> None:
    mel("d/a.npy")
    Path("d/b.npy").symlink_to("b.npy")
    for _ in range(2):
        status, out, err = cli("d", "-o", "out")
        assert (status, "1 failed" in out, "b.npy" in err) == (2, True, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["d", "-o", "x.mp3"], "x.mp3: cannot write .mp3"),
        (["d", "-o", "d/a.npy/deeper"], "d/a.npy: is no folder"),
        (["d", "none"], "none: no such file or folder"),
        (["d/a.npy", "-o", "x.wav", "--format", "flac"], "name one kind of file"),
        (["d/a.npy", "-o", "x", "--format", "raw"], "raw"),
    ],
)
def test_what_cannot_be_meant_is_one_line(cli, tmp_path, arguments, told) -> None:
    mel("d/a.npy")
    before = contents(".")
    status, _, err = cli(*arguments)
    assert (status, told in err, len(err.splitlines())) == (2, True, 1)
    assert contents(".") == before


@pytest.fixture
def audio():
    """Writes a short recording."""
    from fastglow.audio import write_audio

    def write(path: str) -> None:
        wave = 0.1 * np.random.default_rng(len(path)).standard_normal(3000)
        write_audio(path, wave.astype(np.float32), TINY.sampling_rate)

    return write
