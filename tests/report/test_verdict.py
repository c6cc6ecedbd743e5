"""The verdict says what is shown, and not more: chance, shortcuts, leaks, few cases, no test."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.reports import six_classes, two_classes
from helpers.run_files import two_class_table

from fracnet.evaluation.predictions import assemble
from fracnet.report.run_content import RunContent
from fracnet.report.verdict import Verdict, against, verdict
from fracnet.runs.report_run import content_of


def judged(content: RunContent) -> Verdict:
    return verdict(content, against(content))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> RunContent:
    """A clear difference between the classes, at 60 patients."""
    table = two_class_table(60, 60, shift=0.0, confident=3.0)
    return content_of(two_classes(tmp_path_factory.mktemp("good") / "run", table))


def audited(content: RunContent, severity: str, split: str = "official") -> RunContent:
    audit = {"severity": severity, "verdict": f"It is a {severity}."}
    config = {**content.config, "data": {"split": split}}
    return replace(content, provenance={"data": {"audit": audit}}, config=config)


def test_a_good_model_is_said_to_beat_chance_and_shortcuts(good: RunContent) -> None:
    found = judged(audited(good, "ok"))
    assert found.headline == (
        "The model tells abnormal from normal studies better than chance and shortcuts do."
    )
    area = good.overall["study"].summary.metrics["macro_auc"]
    assert f"AUC {area.value:.3f} ({area.low:.3f}-{area.high:.3f})" in found.sentences[0]
    assert "the difference is +" in found.sentences[0]


def test_a_leak_comes_before_any_figure(good: RunContent) -> None:
    found = judged(audited(good, "leak"))
    assert found.severity == "leak"
    assert found.headline.startswith("These figures are too good")
    assert found.sentences[0] == "The audit says: It is a leak."
    without = judged(audited(good, "leak", "deduplicated"))
    assert without.severity != "leak"
    assert "left out here" in " ".join(without.sentences)


def test_no_audit_is_told_and_takes_no_fault_found_away(good: RunContent) -> None:
    assert "have not been audited" in " ".join(judged(good).sentences)
    assert judged(good).tag != "no fault found"
    others = replace(good, run_known=False)
    assert "trained on is not known" in " ".join(judged(others).sentences)


def test_chance_is_no_success(tmp_path: Path) -> None:
    table = two_class_table(40, 40)
    logits = table[["logit_normal", "logit_abnormal"]].to_numpy()
    rows = table.drop(columns=[c for c in table if c.startswith(("logit", "prob"))])
    mixed = pd.concat(
        [
            assemble(part, ("normal", "abnormal"), logits[part.index][::-1])
            for _, part in rows.groupby("split", sort=False)
        ]
    ).reset_index(drop=True)
    found = judged(content_of(two_classes(tmp_path / "run", mixed)))
    assert found.headline == "The model is not shown to do better than chance."
    assert found.severity == "warning"


def test_worse_than_chance_asks_for_the_labels(tmp_path: Path) -> None:
    table = two_class_table(60, 60, shift=0.0, confident=-3.0)
    found = judged(content_of(two_classes(tmp_path / "run", table)))
    assert found.severity == "error"
    assert "worse than chance" in found.headline


@pytest.mark.parametrize(
    ("baseline", "headline"),
    [
        ("same", "The model is not shown to do better than shortcuts that see no bone."),
        ("none", "The model tells abnormal from normal studies better than chance."),
        ("truth", "Shortcuts that see no bone do better than the model."),
    ],
)
def test_shortcuts_are_set_against_it(good: RunContent, baseline: str, headline: str) -> None:
    test = good.table[good.table["split"] == "test"]
    case = (test["label"] == "abnormal") * 1.0
    perfect = test.assign(prob_abnormal=0.1 + 0.8 * case, prob_normal=0.9 - 0.8 * case)
    perfect = perfect.drop(columns=["logit_normal", "logit_abnormal"])
    tables = {"same": {"shortcut": test}, "none": {}, "truth": {"shortcut": perfect}}[baseline]
    found = judged(replace(good, baselines=tables))
    assert found.headline == headline
    assert found.tag != "no fault found"


def test_without_a_test_nothing_is_known(good: RunContent) -> None:
    assessment = replace(good.assessment, test=None, strata=())
    found = judged(replace(good, assessment=assessment))
    assert found.headline == "How well the model does on new images is not known."
    assert "optimistic" in found.sentences[0]


def test_an_accuracy_no_better_than_one_answer_is_told_as_such(tmp_path: Path) -> None:
    table = two_class_table(40, 40, shift=-9.0)  # all called normal at 0.5
    found = judged(content_of(two_classes(tmp_path / "run", table)))
    (sentence,) = [one for one in found.sentences if "always answering" in one]
    assert sentence.startswith("Its accuracy by image, each called abnormal above 0.5, is 0.")
    assert "always answering normal" in sentence


def test_few_cases_are_named(tmp_path: Path) -> None:
    found = judged(content_of(six_classes(tmp_path / "run")))
    assert "Fewer than 10 cases: wrist 8." in " ".join(found.sentences)
    assert "its 6 classes apart" in found.headline


def test_an_area_that_is_undefined_is_no_failure(tmp_path: Path) -> None:
    table = two_class_table(40, 40)
    table = table[(table["split"] == "val") | (table["label"] == "normal")]
    found = judged(content_of(two_classes(tmp_path / "run", table.reset_index(drop=True))))
    assert found.headline == "Whether the model works cannot be told from these rows."


def test_a_threshold_is_reproached_only_where_its_fall_is_shown(good: RunContent) -> None:
    """Both intervals count: of many validation rows a fall is shown, of few it is not."""

    def said(n: int) -> str:
        decisions: dict[str, Any] = json.loads(json.dumps(good.assessment.decisions))
        point = decisions["operating_point"]["study"]
        here = good.overall["study"].summary.per_class[1].sensitivity
        assert here.high is not None
        point |= {"sensitivity": min(1.0, here.high + 0.02), "n": 2 * n, "positives": n}
        changed = replace(good.assessment, decisions=decisions)
        return " ".join(judged(replace(good, assessment=changed)).sentences)

    assert "The threshold does less" in said(20_000)
    assert "The threshold does less" not in said(12)


@pytest.mark.parametrize(
    ("rule", "confident", "said"),
    [
        ({"sensitivity": 1.0}, -3.0, "only by calling everything abnormal"),
        ({"specificity": 1.0}, -3.0, "only by calling nothing abnormal"),
        ({"sensitivity": 0.8}, 3.0, ""),
    ],
)
def test_a_threshold_that_decides_nothing_is_called_out(
    rule: dict[str, float], confident: float, said: str, tmp_path: Path
) -> None:
    options = {"resamples": 100, "by": [], "operating_point": rule, "calibrate": False}
    table = two_class_table(60, 60, shift=0.0, confident=confident)
    found = judged(content_of(two_classes(tmp_path / "run", table, evaluation=options)))
    sentences = [one for one in found.sentences if "only by calling" in one]
    assert len(sentences) == bool(said)
    assert said in " ".join(sentences)


def test_maps_of_unclear_dependence_are_not_called_sound(good: RunContent) -> None:
    sanity = {"verdict": "unclear", "sentences": ["It cannot be told."]}
    explained = {"sanity": sanity, "localization": None, "model_dependent": None}
    found = judged(replace(good, explained=explained))
    said = "It is not shown whether the heatmaps depend on the weights."
    assert said in found.sentences
    assert said not in judged(replace(good, explained=explained | {"sanity": None})).sentences


def test_maps_that_survive_are_called_out(good: RunContent) -> None:
    sanity = {"verdict": "survives", "sentences": ["They survive.", "More."]}
    found = judged(replace(good, explained={"sanity": sanity, "localization": None}))
    assert "They survive." in found.sentences
    assert "More." not in found.sentences
    assert found.severity == "warning"


def test_the_audit_of_the_training_data_is_not_held_against_another_test(good: RunContent) -> None:
    content = replace(audited(good, "leak"), data="another")
    found = judged(content)
    assert found.severity != "leak"
    assert "Trained on mura_like, tested on another" in " ".join(found.sentences)
