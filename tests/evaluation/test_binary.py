"""The two-class task by level and region, against scikit-learn."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import cohen_kappa_score, recall_score, roc_auc_score

from fracnet.evaluation.aggregation import to_level
from fracnet.evaluation.assessment import official_metrics
from fracnet.evaluation.predictions import Predictions, assemble
from fracnet.evaluation.summary import summarize
from fracnet.metrics import classification
from fracnet.report.run_tables import mura_kappa_table
from fracnet.report.tables import print_table

CLASSES = ("normal", "abnormal")


def mura_like(patients: int = 60, seed: int = 0) -> pd.DataFrame:
    """Patients with one study a region and one to four views, scores that follow the label."""
    rng = np.random.default_rng(seed)
    rows, scores = [], []
    for patient in range(patients):
        region = ("elbow", "wrist")[patient % 2]
        abnormal = rng.random() < 0.45
        shift = rng.normal()
        for view in range(rng.integers(1, 5)):
            study = f"{region}/{patient}/1"
            rows.append(
                {
                    "path": f"{study}/{view}.png",
                    "split": "test",
                    "label": CLASSES[abnormal],
                    "patient": f"{patient:05}",
                    "study": study,
                    "region": region,
                }
            )
            scores.append(1.5 * abnormal - 0.7 + shift + 0.5 * rng.normal())
    logits = np.column_stack([np.zeros(len(scores)), scores])
    return assemble(pd.DataFrame(rows), CLASSES, logits)


def test_metrics_agree_with_sklearn_at_both_levels_and_in_each_region() -> None:
    table = mura_like()
    studies = table.groupby("study").agg(
        label=("label", "first"),
        region=("region", "first"),
        prob_abnormal=("prob_abnormal", "mean"),
    )
    rows = {(row.level, row.region): row for row in official_metrics(Predictions(table))}
    assert set(rows) == {(a, b) for a in ("image", "study") for b in ("overall", "elbow", "wrist")}
    for (level, region), row in rows.items():
        part = table if level == "image" else studies
        part = part if region == "overall" else part[part["region"] == region]
        truth, predicted = part["label"] == "abnormal", part["prob_abnormal"] > 0.5
        assert (row.n, row.positives) == (len(part), truth.sum())
        assert row.auc.value == pytest.approx(roc_auc_score(truth, part["prob_abnormal"]))
        assert row.sensitivity.value == pytest.approx(recall_score(truth, predicted))
        assert row.specificity.value == pytest.approx(recall_score(~truth, ~predicted))
        assert row.kappa.value == pytest.approx(cohen_kappa_score(truth, predicted))
        for estimate in (row.auc, row.sensitivity, row.specificity, row.kappa):
            assert estimate.low is not None
            assert estimate.high is not None
            assert estimate.low < estimate.value < estimate.high


def test_row_order_changes_nothing() -> None:
    table = mura_like()
    shuffled = table.sample(frac=1, random_state=1)
    left, right = (official_metrics(Predictions(t)) for t in (table, shuffled))
    assert [row.to_dict() for row in left] == [row.to_dict() for row in right]


def test_a_study_is_the_mean_of_its_views() -> None:
    table = mura_like(patients=3)
    studies = to_level(Predictions(table), "study").table
    for row in studies.itertuples():
        views = table[table["study"] == row.study]
        assert row.prob_abnormal == pytest.approx(views["prob_abnormal"].mean(), rel=1e-12)
        assert row.views == len(views)


def test_a_mean_of_exactly_one_half_is_normal() -> None:
    table = mura_like(patients=1)[:1]
    table["prob_normal"], table["prob_abnormal"] = 0.5, 0.5
    matrix = classification.confusion(
        np.array([0]), classification.predict(np.array([[0.5, 0.5]])), 2
    )
    assert matrix[0, 0] == 1
    assert to_level(Predictions(table), "study").table["prob_abnormal"].tolist() == [0.5]


def test_with_two_labels_in_a_study_there_are_images_only() -> None:
    table = mura_like(patients=20)
    views = table[table["study"].duplicated(keep=False)].index[:1]
    table.loc[views, "label"] = [c for c in CLASSES if c != table.loc[views[0], "label"]]
    assert {row.level for row in official_metrics(Predictions(table), 100)} == {"image"}


def test_a_study_of_two_regions_is_judged_whole() -> None:
    table = mura_like()
    views = table[table["study"].duplicated()].index[:1]
    table.loc[views, "region"] = "hand"
    rows = [(row.level, row.region) for row in official_metrics(Predictions(table), 100)]
    assert rows == [("image", r) for r in ("overall", "elbow", "hand", "wrist")] + [
        ("study", "overall")
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    print_table(console, mura_kappa_table(official_metrics(Predictions(table), 100), "abnormal"))
    (line,) = [row.split() for row in console.export_text().splitlines() if "elbow" in row]
    assert line[-2:] == ["-", "-"], "and not the metric of a part"


def test_kappa_has_the_interval_that_it_has_elsewhere() -> None:
    table = mura_like()
    assert (
        official_metrics(Predictions(table), 100)[0].kappa
        == summarize(Predictions(table), resamples=100).metrics["kappa"]
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_classes", [2, 5])
def test_kappa_agrees_with_sklearn(seed: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, n_classes, (2, 40))
    value = classification.kappa(classification.confusion(truth, predicted, n_classes))
    assert value == pytest.approx(cohen_kappa_score(truth, predicted))


def test_kappa_is_undefined_where_both_name_one_class_only() -> None:
    same = np.zeros(5, dtype=int)
    assert np.isnan(classification.kappa(classification.confusion(same, same, 2)))


def test_regions_of_one_class_are_not_scored() -> None:
    table = mura_like()
    table.loc[table["region"] == "wrist", "label"] = "normal"
    row = next(
        r for r in official_metrics(Predictions(table)) if (r.level, r.region) == ("image", "wrist")
    )
    assert np.isnan(row.auc.value)
    assert row.auc.low is None
    assert np.isnan(row.sensitivity.value)
    assert row.to_dict()["auc"]["value"] is None


def test_printed_table_fits_eighty_columns_and_says_abnormal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    rows = official_metrics(Predictions(mura_like()))
    print_table(console, mura_kappa_table(rows, "abnormal"))
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    for part in (
        "abnormal if the mean raw probability is above 0.5",
        "kappa by study",
        "overall",
        "elbow",
    ):
        assert part in text
    overall = next(row for row in rows if (row.level, row.region) == ("study", "overall"))
    assert f"{overall.kappa.value:.3f} {overall.kappa.low:.3f}-{overall.kappa.high:.3f}" in text
    assert "fracture" not in text


def test_kappas_interval_rests_on_as_many_resamples_as_asked() -> None:
    few, many = (
        official_metrics(Predictions(mura_like()), resamples)[0].kappa for resamples in (100, 2000)
    )
    assert few.value == many.value
    assert few.low != many.low
    assert many == official_metrics(Predictions(mura_like()))[0].kappa
