"""A network so sure that its probabilities round to 1 has one AUC on its page, and not two."""

from pathlib import Path

import pytest
from helpers.reports import two_classes
from helpers.run_files import two_class_table

from fracnet.report.model_card import as_card
from fracnet.report.run_charts import roc
from fracnet.report.run_content import RunContent
from fracnet.report.run_tables import all_figures, operating_point
from fracnet.report.verdict import against, verdict
from fracnet.runs.report_run import content_of


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> RunContent:
    table = two_class_table(shift=38.0, confident=4.0)
    options = {"resamples": 100, "by": [], "calibrate": False}
    folder = tmp_path_factory.mktemp("saturated") / "run"
    return content_of(two_classes(folder, table, evaluation=options))


def test_verdict_card_table_and_curve_have_the_same_area(content: RunContent) -> None:
    summary = content.overall["study"].summary
    area = f"{summary.per_class[1].auc.value:.3f}"
    assert area != f"{summary.metrics['macro_auc'].value:.3f}", "the two tie in different rows"
    found = against(content)
    assert f"{found.model.value:.3f}" == area
    assert f"AUC {area} (" in " ".join(verdict(content, found).sentences)
    assert f"AUC {area} (" in as_card(content)
    table = operating_point(content)
    assert table is not None
    row = next(row for row in table.rows if row[0] == "study")
    assert str(row[3]).startswith(area)
    assert f"AUC {area} (" in roc(content)[0].keys[0][1]
    assert found.difference is not None
    assert found.baseline is not None
    gap = found.model.value - found.baseline.value
    assert found.difference.value == pytest.approx(gap), "of the same figure"


def test_a_mean_over_both_classes_that_differs_is_explained(
    content: RunContent, tmp_path: Path
) -> None:
    one, other = (row.auc.value for row in content.shown.per_class)
    words = f"Macro AUC is the mean of {one:.3f} (normal) and {other:.3f} (abnormal)."
    assert words in all_figures(content).note
    plain = content_of(two_classes(tmp_path / "run"))
    assert "Macro AUC is the mean" not in all_figures(plain).note
