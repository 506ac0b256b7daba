"""The report is one file that asks for nothing, and the tables show what was found."""

import io
from html.parser import HTMLParser

import numpy as np
import pytest
from known import RATE, speech, voiced
from rich.console import Console

from fastglow.evaluate.record import FileScores, Result
from fastglow.evaluate.table import print_result

pytest.importorskip("librosa")


class Page(HTMLParser):
    """What a browser would fetch and show."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.cells, self.text, self._cell = [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self._cell = tag in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self._cell:
            self.cells.append(data)
        self._cell = False


@pytest.fixture
def result():
    files = [
        FileScores(
            f"{name}.wav",
            1.0,
            {
                "original": {"mos": 4.5, "peak": 0.7},
                "voice": {"pesq_wb": pesq, "mos": 4.0, "peak": 0.6},
                "griffin_lim": {"pesq_wb": 1.5, "mos": 2.0, "peak": 0.5},
            },
        )
        for name, pesq in (("<a>", 3.0), ("b", 3.5), ("c", None))
    ]
    return Result("x & y", {"seed": 7, "generated": None}, {"pesq": "1"}, files, ["<d>: bad"])


def shown(result, width):
    console = Console(file=io.StringIO(), width=width)
    print_result(console, result)
    return console.file.getvalue()


def test_tables_show_figures_means_intervals_and_what_is_missing(result):
    text = shown(result, 160)
    assert "3.25 [3.00, 3.50] (1 n/a)" in text
    assert "Griffin-Lim" in text
    row = next(line.split() for line in text.splitlines() if "<a>.wav" in line)
    assert row == ["<a>.wav", "1.0", "x", "&", "y", "3.00", "4.00", "0.60"]
    assert "mean over 3 files" in text
    assert any(line.split()[-3:] == ["n/a", "4.00", "0.60"] for line in text.splitlines())


def test_a_narrow_terminal_shows_the_main_figures_whole(result):
    text = shown(result, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "3.00" in text
    assert "0.60 " not in text.split("mean over")[0]  # the peak is left to the summary


def test_the_report_is_one_file_that_asks_for_nothing(result, tmp_path):
    pytest.importorskip("matplotlib")
    from fastglow.evaluate.report import write_report

    write_report(tmp_path / "r.html", result, [("<a>.wav", b"\x89PNG picture")])
    page = Page((tmp_path / "r.html").read_text("utf-8"))
    assert len(page.addresses) == 2  # the strips, and the one picture
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "3.25 [3.00, 3.50] (1 n/a)" in page.cells
    assert {"<a>.wav", "x & y", "seed", "7", "pesq 1"} <= set(page.cells)
    assert "<d>: bad" in page.text


def pixels(png):
    image = pytest.importorskip("matplotlib.image")
    return image.imread(io.BytesIO(png), format="png")[..., :3]


def test_spectrograms_stand_side_by_side_and_show_the_tone_in_its_place():
    pytest.importorskip("matplotlib")
    from fastglow.evaluate.pictures import spectrograms

    # Bright left, dark right: a tone at half the height beside silence.
    tone = 0.5 * np.cos(2 * np.pi / 4 * np.arange(RATE)).astype(np.float32)
    drawn = pixels(spectrograms([("tone", tone), ("silence", 0 * tone)], RATE)).sum(axis=2)
    height, width = drawn.shape
    column = drawn[height // 5 : -height // 5, width // 4]
    found = (height // 5 + int(column.argmax())) / height
    assert column.max() > 2
    assert found == pytest.approx(0.5, abs=0.08)
    assert drawn[height // 5 : -height // 5, 3 * width // 4].max() < 0.2
    three = pixels(spectrograms([("a", tone), ("b", tone), ("c", tone)], RATE))
    assert three.shape[1] > 1.3 * width


def test_pictures_of_short_clips_and_empty_columns_are_drawn(result):
    pytest.importorskip("matplotlib")
    from fastglow.evaluate.pictures import spectrograms, strips

    assert pixels(spectrograms([("a", speech(0.01)), ("b", speech(0.02))], RATE)).min() < 0.5
    nothing = [FileScores("a", 1.0, {"voice": {"stoi": None}, "original": {"peak": 0.5}})]
    assert pixels(strips(Result("v", {}, {}, nothing))).max() == 1
    more = pixels(strips(result))
    assert more.std() > pixels(strips(Result("v", {}, {}, nothing))).std()


def test_the_same_run_gives_the_same_page(result, tmp_path):
    pytest.importorskip("matplotlib")
    from fastglow.evaluate.pictures import spectrograms
    from fastglow.evaluate.report import write_report

    picture = spectrograms([("a", voiced(200).astype(np.float32))], RATE)
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, result, [("a", picture)])
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
