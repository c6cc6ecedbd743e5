"""The clock: what counts as reaching an accuracy, and the time until then over seeds."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _experiments_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


PRINTS = (
    "import time\n"
    "print('cache built')\n"
    "for epoch, accuracy in enumerate([0.2, 0.6, 0.7], start=1):\n"
    "    time.sleep(0.1)\n"
    "    print(f'epoch {epoch}/3  loss 1.000  val: loss 2.0  accuracy {accuracy:.3f}  AUC 0.9')\n"
    "time.sleep(60)\n"
)


@pytest.mark.parametrize(("limit", "goal", "epochs"), [(60, 2, 3), (0, 2, 1), (60, 0.6, 2)])
def test_a_run_is_followed_to_its_last_epoch_its_limit_or_its_goal(
    limit: float, goal: float, epochs: int, tmp_path: Path
) -> None:
    from experiments.clock.run import time_run

    timed = time_run([sys.executable, "-c", PRINTS], tmp_path, limit, goal)
    assert [accuracy for _, accuracy in timed.curve] == [0.2, 0.6, 0.7][:epochs]
    times = [when for when, _ in timed.curve]
    assert times == sorted(times)
    assert 0.1 < times[0] < timed.seconds < 30, "what follows the last epoch does not count"


def test_a_run_that_prints_no_epoch_shows_what_it_printed(tmp_path: Path) -> None:
    from experiments.clock.run import time_run

    with pytest.raises(SystemExit, match="no such file"):
        time_run([sys.executable, "-c", "print('no such file')"], tmp_path, 60, 2)


def test_failed_runs_count_until_one_succeeds() -> None:
    from experiments.clock.run import Timed, expected_seconds

    runs = [
        Timed([(10, 0.5), (20, 0.8)], 21),
        Timed([(10, 0.7), (20, 0.7)], 30),  # never
        Timed([(10, 0.9), (20, 0.6)], 20),
    ]
    assert expected_seconds(runs, 0.8) == (pytest.approx(2 / 3), (20 + 30 + 10) / 2)
    assert expected_seconds(runs, 0.5) == (1.0, (10 + 10 + 10) / 3)
    assert expected_seconds(runs, 0.95) == (0.0, None)
