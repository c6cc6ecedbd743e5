"""What the configs of the other commands may hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fracnet.config.fields import (
    MISSING,
    Count,
    Fixed,
    Labels,
    Metric,
    Real,
    Target,
    Text,
    Whole,
    as_items,
    as_list,
    matching,
)
from fracnet.config.schema import Cases, Evaluation, Explain, Images, Method, Name, Report

Device = Literal["auto", "cpu", "gpu"]
Errors = Annotated[Real, Field(ge=0.001, le=0.5)]
Texts = Annotated[list[str], BeforeValidator(as_list)]
Port = Annotated[Whole, Field(ge=0, le=65535)]


def newest_run() -> str:
    """The newest run folder in runs/, for an example that works; a made-up one if there is none."""
    configs = list(Path("runs").glob("*/config.yaml"))
    newest = max(configs, key=lambda path: path.stat().st_mtime, default=None)
    return str(newest.parent) if newest else "runs/2026-01-31_12-00-00_ab12"


def _needed(advice: Callable[[], str]) -> BeforeValidator:
    """Refuse an empty value, with what to type."""

    def check(value: Any) -> Any:
        if value in (None, "", [], MISSING):
            raise ValueError(advice())
        return value

    return BeforeValidator(check)


Run = Annotated[str, _needed(lambda: f"name a run, e.g. run={newest_run()}")]
Patterns = Annotated[
    list[Text],
    BeforeValidator(as_list),
    _needed(lambda: "name some runs, e.g. runs='runs/*' or runs=[runs/a,runs/b]"),
]


class DataCommand(Fixed):
    """A command whose `data=` may set keys that only training uses: they are dropped."""

    @model_validator(mode="before")
    @classmethod
    def _without_training(cls, plain: Any) -> Any:
        return {key: value for key, value in plain.items() if key not in ("image_size", "model")}


class EvaluateCommand(DataCommand):
    """The keys of `python -m fracnet.evaluate`; None keeps the run's own option."""

    run: str | None
    table: str | None
    columns: dict[str, str | int] | None
    labels: dict[str | int | bool | float, str] | None
    out: str | None
    name: (
        Annotated[
            str,
            Field(min_length=1, max_length=100),
            matching(r"[^/\\.][^/\\]*", r"a name of a folder, without / and \, and no dot first"),
        ]
        | None
    )
    cited: str | None
    views: Any
    operating_point: Any
    calibrate: Any
    by: Any
    resamples: Any
    figures: bool | None
    report: Report
    data: dict[str, Any]
    data_dir: str
    class_map: Labels | None
    tta: Texts
    trust: bool

    @property
    def on_other_data(self) -> bool:
        """Whether another dataset is chosen."""
        return "_target_" in self.data

    @property
    def needs_model(self) -> bool:
        """Whether the model must predict images."""
        return self.on_other_data or bool(self.tta)

    def changes(self) -> dict[str, Any]:
        """The evaluation options that the command sets."""
        options = {key: getattr(self, key) for key in Evaluation.model_fields if key != "figures"}
        return {key: value for key, value in options.items() if value is not None}


class ExplainCommand(Fixed):
    """The keys of `python -m fracnet.explain`; None keeps the run's own option."""

    run: Run
    method: Method | None
    layer: str | None
    cases: Cases | None
    sanity: Images | None
    report: Report
    trust: bool

    def merged_with(self, own: Explain | None) -> Explain:
        """The run's options, or the defaults if it has none, overridden by the command's."""
        options: dict[str, Any] = {key: getattr(self, key) for key in Explain.model_fields}
        given = {key: value for key, value in options.items() if value is not None}
        return (own or Explain()).model_copy(update=given)


class PredictCommand(Fixed):
    """The keys of `python -m fracnet.predict`."""

    run: Run
    input: Annotated[
        list[Text],
        BeforeValidator(as_items),
        _needed(lambda: "name images or folders, e.g. input=scans/"),
    ]
    out: Text | None
    overlays: bool
    confident_errors: Errors | None
    device: Device
    trust: bool


class ServeCommand(Fixed):
    """The keys of `python -m fracnet.serve`."""

    run: Run
    host: Text
    port: Port
    token: (
        Annotated[str, Field(min_length=8), matching(r"[\w.~-]+", "letters, digits, _.~-")] | None
    )
    max_mb: Annotated[Whole, Field(ge=1, le=100_000)]
    max_files: Annotated[Whole, Field(ge=1, le=100_000)]
    max_seconds: Annotated[Real, Field(ge=1, le=86_400)]
    confident_errors: Errors | None
    device: Device
    trust: bool


class Tls(Fixed):
    """Files in PEM format; `ca` signs the certificates that callers must show."""

    cert: str | None
    key: str | None
    ca: str | None


AE_TITLE = r"[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?"
AeTitle = Annotated[
    str,
    Field(max_length=16),
    matching(AE_TITLE, r"printable ASCII without \, no space at either end"),
]


class NodeCommand(Fixed):
    """The keys of `python -m fracnet.node`."""

    run: Run
    aet: AeTitle
    host: Text
    port: Port
    callers: Annotated[list[AeTitle], BeforeValidator(as_list)]
    tls: Tls
    quiet: Annotated[Real, Field(ge=0.1, le=86_400)]
    send_to: Texts
    folder: Text | None
    stow: Text | None
    silent: bool
    spool: Text
    disk_limit: Annotated[Real, Field(gt=0, le=1_000_000)]
    keep_hours: Annotated[Real, Field(ge=0, le=100_000)]
    max_mb: Annotated[Whole, Field(ge=1, le=1000)]
    confident_errors: Errors | None
    device: Device
    trust: bool


class ExportCommand(Fixed):
    """The keys of `python -m fracnet.export`."""

    run: Run
    out: Text | None
    target: Literal["onnx", "web"]
    compare: bool
    benchmark: bool
    quantize: Literal["none", "int8"]
    margin: Annotated[Real, Field(gt=0, le=0.5)]
    confident_errors: Errors
    trust: bool


class VerifyCommand(Fixed):
    """The keys of `python -m fracnet.verify`."""

    file: Annotated[str, _needed(lambda: "name an exported model, e.g. fracnet verify model.onnx")]
    run: Text | None
    trust: bool


class AuditData(Target):
    """A dataset; further keys are its own arguments."""

    root: str = Field(min_length=1)
    on_bad_file: Literal["error", "skip"]


class AuditCommand(DataCommand):
    """The keys of `python -m fracnet.audit`."""

    data: AuditData
    data_dir: str
    out: str | None
    fail_on: Literal["hint", "warning", "leak", "error"] | None
    pictures: Annotated[Whole, Field(ge=0, le=1000)]
    workers: Annotated[Whole, Field(ge=1, le=256)] | None
    progress_bar: bool
    features: Text | None = None


class CompareCommand(Fixed):
    """The keys of `python -m fracnet.compare`."""

    runs: Patterns
    metric: str
    class_name: str | None
    level: Literal["image", "study", "patient"]
    decisions: Literal["raw", "frozen"]
    reference: str | None
    pairs: Literal["reference", "all"]
    seeds: Literal["grouped", "apart"]
    margin: Annotated[Real, Field(gt=0)] | None
    resamples: Annotated[Count, Field(ge=100, le=100_000)]
    out: str | None


class EnsembleCommand(Fixed):
    """The keys of `python -m fracnet.ensemble`."""

    runs: Patterns
    out: str | None
    tta: Texts
    trust: bool


class DashboardCommand(Fixed):
    """The keys of `python -m fracnet.dashboard`."""

    project: Annotated[Name, _needed(lambda: "name the W&B project, e.g. project=fracnet")]
    entity: Name | None
    name: Annotated[str, Field(min_length=1, max_length=128)]
    folder: str | None
    keys: Texts
    metric: Metric
    send: bool
    out: str | None
