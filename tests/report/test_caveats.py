"""What a page says about its data: phantoms, labels that are not fractures, and audits."""

import json
from pathlib import Path

import pytest
from helpers.jobs import add_job
from helpers.pages import comparison
from helpers.run_folders import CLASSES, table_of

from fracnet.report.caveats import data_notes, summarize_audits
from fracnet.report.sweep_charts import Trial
from fracnet.runs.run_folder import FORMAT, FORMAT_KEY
from fracnet.runs.sweep_summary import collect

LEAK = {"severity": "leak", "verdict": "Test figures will be too good."}
NOTE = {"note": "Of the official split; 3 verified copies are left out here."}


def trial(data: str = "mura", **more: object) -> Trial:
    return Trial("job", "of", {}, 0.5, data=data, **more)  # type: ignore[arg-type]


def test_abnormal_is_distinguished_from_fractured_by_class_and_not_by_name() -> None:
    for name in ("mura", "a name of the user's"):
        assert "not the same as fractured" in " ".join(data_notes([trial(name, classes=CLASSES)]))
    phantom = trial("mura_phantom", classes=CLASSES)
    assert "fractured" not in " ".join(data_notes([phantom])), "a fracture is drawn there"
    assert "not the same as fractured" in " ".join(data_notes([phantom, trial(classes=CLASSES)]))
    other = data_notes([trial("mura_regions", classes=("elbow", "wrist"))])
    assert other == ["Data: mura_regions."]


def test_phantoms_carry_a_caveat() -> None:
    assert "no metric here says anything about patients" in " ".join(
        data_notes([trial("x_phantom")])
    )
    mixed = " ".join(data_notes([trial("x_phantom"), trial("mura")]))
    assert "(phantoms) say nothing about patients" in mixed
    assert "no metric here" not in mixed


@pytest.mark.parametrize(
    ("audit", "severity", "fact", "messages"),
    [
        (LEAK, "leak", "leak", ["Audit of mura: leak. Test figures"]),
        (LEAK | NOTE, "hint", "leak", ["3 verified copies are left out here"]),
        ({"severity": "ok", "verdict": "Nothing."}, "ok", "ok", ["Audit of mura: ok. Nothing."]),
        ({}, "hint", "not audited", ["mura has not been audited: it is unknown whether"]),
        (None, "hint", "unknown", ["do not record whether their data were audited"]),
    ],
)
def test_the_audit_is_reported_as_the_runs_recorded_it(
    audit: dict[str, str] | None, severity: str, fact: str, messages: list[str]
) -> None:
    summary = summarize_audits([trial(audit=audit), trial(audit=audit)])
    assert (summary.severity, summary.fact) == (severity, fact)
    assert bool(summary.flaw) == (severity == "leak")
    assert len(summary.sentences) == len(messages)
    for sentence, part in zip(summary.sentences, messages, strict=True):
        assert part in sentence


def test_runs_before_and_after_an_audit_are_distinguished() -> None:
    summary = summarize_audits(
        [trial(audit={}), trial(audit=LEAK), trial(audit=LEAK), trial(audit=None)]
    )
    assert (summary.severity, summary.fact) == ("leak", "not audited, leak")
    text = " ".join(summary.sentences)
    assert "mura has not been audited (1 of 3 runs)" in text
    assert "Audit of mura (2 of 3 runs): leak." in text


def test_the_page_of_a_comparison_reports_the_audit(tmp_path: Path) -> None:
    page = comparison(tmp_path).read_text(encoding="utf-8")
    assert "not the same as fractured" in page
    assert '<section class="verdict leak"' in page
    assert "Audit of mura_copies: leak. Test figures" in page
    assert page.index("These metrics are too good") < page.index("is better than lr=0.1 by")
    assert "<dt>audit of the data</dt><dd>leak</dd>" in page


def test_the_page_of_a_sweep_reports_the_audit(tmp_path: Path) -> None:
    for number in range(2):
        add_job(tmp_path, number, [f"optim.lr={number}"], 0.5)
    job = tmp_path / "1"
    provenance = {FORMAT_KEY: FORMAT, "data": {"audit": None}}
    (job / "provenance.json").write_text(json.dumps(provenance))
    (job / "fit.json").write_text(json.dumps({"data": {"name": "mine"}}))
    table_of(1.0).to_csv(job / "predictions.csv", index=False)
    collect(tmp_path, "best")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "mine has not been audited: it is unknown whether" in page
    assert "<dt>audit of the data</dt><dd>not audited</dd>" in page
    assert "not the same as fractured" in page
