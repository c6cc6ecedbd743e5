from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.figures import check_pair, has_color
from helpers.predictions import UPPER_LIMB_COUNTS, make_table

from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import summarize
from fracnet.report import plots
from fracnet.report.plots import save
from fracnet.report.run_charts import STRONGEST, confusion_matrix, save_learning_curves
from fracnet.utils.errors import UserError


def write_metrics(folder: Path, epochs: int, **changed: object) -> Path:
    epoch = np.arange(epochs)
    table = pd.DataFrame(
        {
            "epoch": epoch,
            "train/loss": 1.8 * 0.9**epoch,
            "val/loss": 1.9 * 0.92**epoch,
            "val/accuracy": 1 - 0.8 * 0.9**epoch,
            "val/macro_sensitivity": 1 - 0.8 * 0.91**epoch,
            "val/macro_specificity": 1 - 0.2 * 0.9**epoch,
            "val/macro_auc": 1 - 0.5 * 0.8**epoch,
            "lr": 0.001,
        }
    ).assign(**changed)
    path = folder / "metrics.csv"
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("epochs", [1, 120])
def test_curves_show_losses_rates_and_the_selected_epoch(tmp_path: Path, epochs: int) -> None:
    csv = write_metrics(tmp_path, epochs)
    paths = save_learning_curves(csv, tmp_path / "new" / "figures", selected=epochs // 2)
    image = check_pair(paths, "curves")
    for color in (plots.BLUE, plots.VERMILION, plots.GREEN, plots.PURPLE, plots.MUTED):
        assert has_color(image, color)


def test_curves_show_the_available_columns(tmp_path: Path) -> None:
    gaps = [1.0, np.nan, np.inf, 0.7]
    csv = write_metrics(tmp_path, 4, **{"val/loss": gaps, "val/macro_auc": np.nan})
    image = check_pair(save_learning_curves(csv, tmp_path), "curves")
    assert has_color(image, plots.GREEN)
    assert not has_color(image, plots.PURPLE)
    table = pd.read_csv(csv)[["epoch", "train/loss"]]
    table.to_csv(csv, index=False)
    narrow = check_pair(save_learning_curves(csv, tmp_path), "curves")
    assert narrow.width < 0.6 * image.width


def test_curves_merge_the_rows_of_one_epoch(tmp_path: Path) -> None:
    csv = tmp_path / "metrics.csv"
    rows = [[0, 1.5, None], [0, None, 1.6], [1, 1.0, None], [1, None, 1.2]]
    pd.DataFrame(rows, columns=["epoch", "train/loss", "val/loss"]).to_csv(csv, index=False)
    image = check_pair(save_learning_curves(csv, tmp_path), "curves")
    assert has_color(image, plots.BLUE)
    assert has_color(image, plots.VERMILION)


def test_curves_without_data_are_rejected(tmp_path: Path) -> None:
    csv = tmp_path / "metrics.csv"
    csv.write_text("step,loss\n1,2\n")
    with pytest.raises(UserError, match="no column 'epoch', only: step, loss"):
        save_learning_curves(csv, tmp_path)
    csv.write_text("epoch,val/loss\n0,\n")
    with pytest.raises(UserError, match="no values to draw"):
        save_learning_curves(csv, tmp_path)


@pytest.mark.parametrize(
    "counts", [UPPER_LIMB_COUNTS, (40, 0), (130, 0, 13, 14, 15, 6, 400, 9, 8, 3, 2, 77)]
)
def test_confusion_matrix_of_any_size_and_any_names(
    tmp_path: Path, counts: tuple[int, ...]
) -> None:
    names = [f"class {i} with a long name, $cost$ & <tags>" for i in range(len(counts))]
    summary = summarize(Predictions(make_table(counts, 2.0, classes=names)))
    image = check_pair(save(confusion_matrix(summary), tmp_path), "confusion_matrix_test")
    # The row of a class without cases is grey; no other cell is.
    grey = (np.asarray(image) == 0xF1).all(axis=2).sum()
    assert (grey > 5000) == (0 in counts)


def test_a_perfect_matrix_is_darkest_on_the_diagonal_alone(tmp_path: Path) -> None:
    summary = summarize(Predictions(make_table((5, 5), 60.0)))
    paths = save(confusion_matrix(summary), tmp_path)
    image = np.asarray(check_pair(paths, "confusion_matrix_test"))
    # Half of the blue on white: text must stay readable on it.
    dark = (abs(image.astype(int) - [127, 184, 216]) <= 2).all(axis=2)
    # The matrix lies where many pixels of a row and of a column are dark: half of it, not all.
    matrix = dark[dark.sum(axis=1) > 50][:, dark.sum(axis=0) > 50]
    assert min(matrix.shape) > 200
    assert 0.4 < matrix.mean() < 0.52


@pytest.mark.parametrize(
    ("ink", "blue", "ground"),
    [("#1f2328", "#0072b2", "#fbfaf7"), ("#e6e8ea", "#5fb6ea", "#12161a")],
    ids=["light", "dark"],
)
def test_text_is_legible_on_the_darkest_cell(ink: str, blue: str, ground: str) -> None:
    """Contrast of text, as WCAG 2.2 counts it (AA), in the colors of a page."""
    templates = Path(plots.__file__).parent / "templates"
    names = ("colors.css", "base.html")
    style = "".join((templates / name).read_text(encoding="utf-8") for name in names)
    assert all(color in style for color in (ink, blue, ground))

    def rgb(color: str) -> np.ndarray:
        return np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])

    def luminance(color: np.ndarray) -> float:
        linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    cell = STRONGEST * rgb(blue) + (1 - STRONGEST) * rgb(ground)
    dark, light = sorted((luminance(cell), luminance(rgb(ink))))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_drawing_leaves_the_users_matplotlib_settings_alone(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    save(confusion_matrix(summarize(Predictions(make_table((5, 5))))), tmp_path)
    assert dict(matplotlib.rcParams) == before
