"""Does the bench of the audience API measure what it says? All of it once, with a small audience."""

from pathlib import Path

import pytest

from tests.bench.audience import Effort, Figure, measure_audience, print_figures
from tests.bench.audience_data import Size, seed

LITTLE = Effort(lists=3, searches=1, counts=1, upserts=3, imported=200)


@pytest.mark.slow
def test_everything_is_measured_with_the_real_server(tmp_path: Path) -> None:
    seeded = seed(tmp_path / "seeded", Size(contacts=300, events=600))
    figures = {figure.name: figure for figure in measure_audience(seeded.home, tmp_path / "copy", LITTLE)}
    targets = {name: (one.most, one.least, one.unit) for name, one in figures.items() if one.most or one.least}
    assert targets["first page, p99"] == (50, None, "ms")
    assert targets["page by a prefix, p99"] == (50, None, "ms")
    assert targets["search for a part of addresses, in none"] == (1, None, "s")
    assert targets["upsert, p99"] == (5, None, "ms")
    assert targets["import alone"] == (None, 10_000, "rows/s")
    assert targets["memory, at most"] == (250, None, "MB")
    assert [most for name, (most, _, _) in targets.items() if name.startswith("count of three filters")] == [1, 1]
    assert [most for name, (most, _, _) in targets.items() if name.startswith("count of a")] == [3, 3]
    assert all(figure.value > 0 for figure in figures.values())


@pytest.mark.parametrize(
    ("figure", "is_met"),
    [
        (Figure("p99", 49.9, "ms", most=50), True),
        (Figure("p99", 50.0, "ms", most=50), False),
        (Figure("rate", 10_000, "rows/s", least=10_000), True),
        (Figure("rate", 9_999, "rows/s", least=10_000), False),
        (Figure("p50", 1e9, "ms"), True),
    ],
)
def test_a_figure_meets_its_target_or_not(figure: Figure, is_met: bool) -> None:
    assert figure.is_met() is is_met


def test_what_misses_its_target_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_figures(
        [
            Figure("page", 1.234, "ms", most=50),
            Figure("rate", 5_000, "rows/s", least=10_000),
            Figure("median", 1, "ms"),
        ]
    )
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert shown[2:] == ["page 1.23 < 50 ms ok", "rate 5,000 >= 10,000 rows/s MISS", "median 1.00 ms"]
