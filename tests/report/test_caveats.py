"""What a study's page says of its data: phantoms, labels that are no fractures, and audits."""

import json
from pathlib import Path

import pytest
from helpers.jobs import add_job
from helpers.pages import comparison
from helpers.run_folders import CLASSES, table_of

from fracnet.report.caveats import about_data, audits
from fracnet.report.sweep_charts import Trial
from fracnet.runs.sweep_summary import collect

LEAK = {"severity": "leak", "verdict": "Test figures will be too good."}
NOTE = {"note": "Of the official split; 3 verified copies are left out here."}


def trial(data: str = "mura", **more: object) -> Trial:
    return Trial("job", "of", {}, 0.5, data=data, **more)  # type: ignore[arg-type]


def test_abnormal_is_told_from_fractured_by_the_classes_and_not_by_the_name() -> None:
    for name in ("mura", "a name of the user's"):
        assert "not the same as fractured" in " ".join(about_data([trial(name, classes=CLASSES)]))
    drawn = trial("mura_phantom", classes=CLASSES)
    assert "fractured" not in " ".join(about_data([drawn])), "there a fracture is drawn"
    assert "not the same as fractured" in " ".join(about_data([drawn, trial(classes=CLASSES)]))
    other = about_data([trial("mura_regions", classes=("elbow", "wrist"))])
    assert other == ["Data: mura_regions."]


def test_phantoms_say_nothing_about_patients() -> None:
    assert "no figure here says anything about patients" in " ".join(
        about_data([trial("x_phantom")])
    )
    mixed = " ".join(about_data([trial("x_phantom"), trial("mura")]))
    assert "(phantoms) say nothing about patients" in mixed
    assert "no figure here" not in mixed


@pytest.mark.parametrize(
    ("audit", "severity", "fact", "said"),
    [
        (LEAK, "leak", "leak", ["Audit of mura: leak. Test figures"]),
        (LEAK | NOTE, "hint", "leak", ["3 verified copies are left out here"]),
        ({"severity": "ok", "verdict": "Nothing."}, "ok", "ok", ["Audit of mura: ok. Nothing."]),
        ({}, "hint", "not audited", ["mura has not been audited: whether copies"]),
        (None, "hint", "not known", ["do not say whether their data were audited"]),
    ],
)
def test_the_audit_of_the_data_is_told_as_the_runs_know_it(
    audit: dict[str, str] | None, severity: str, fact: str, said: list[str]
) -> None:
    found = audits([trial(audit=audit), trial(audit=audit)])
    assert (found.severity, found.fact) == (severity, fact)
    assert bool(found.flaw) == (severity == "leak")
    assert len(found.sentences) == len(said)
    for sentence, part in zip(found.sentences, said, strict=True):
        assert part in sentence


def test_runs_of_before_and_after_an_audit_are_told_apart() -> None:
    found = audits([trial(audit={}), trial(audit=LEAK), trial(audit=LEAK), trial(audit=None)])
    assert (found.severity, found.fact) == ("leak", "not audited, leak")
    text = " ".join(found.sentences)
    assert "mura has not been audited (1 of 3 runs)" in text
    assert "Audit of mura (2 of 3 runs): leak." in text


def test_the_page_of_a_comparison_says_it(tmp_path: Path) -> None:
    page = comparison(tmp_path).read_text(encoding="utf-8")
    assert "not the same as fractured" in page
    assert '<section class="verdict leak"' in page
    assert "Audit of mura_copies: leak. Test figures" in page
    assert page.index("These figures are too good") < page.index("This configuration is better")
    assert "<dt>audit of the data</dt><dd>leak</dd>" in page


def test_the_page_of_a_sweep_says_it(tmp_path: Path) -> None:
    for number in range(2):
        add_job(tmp_path, number, [f"optim.lr={number}"], 0.5)
    job = tmp_path / "1"
    (job / "provenance.json").write_text(json.dumps({"data": {"audit": None}}))
    (job / "fit.json").write_text(json.dumps({"data": {"name": "mine"}}))
    table_of(1.0).to_csv(job / "predictions.csv", index=False)
    collect(tmp_path, "best")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "mine has not been audited: whether copies" in page
    assert "<dt>audit of the data</dt><dd>not audited</dd>" in page
    assert "not the same as fractured" in page
