"""What the configs of the other commands may hold."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fracnet.config.fields import (
    MISSING,
    Count,
    Fixed,
    Labels,
    Metric,
    Real,
    Target,
    as_list,
    not_boolean,
)
from fracnet.config.schema import Cases, Evaluation, Explain, Images, Method, Name, Report


class EvaluateCommand(Fixed):
    """The keys of `python -m fracnet.evaluate`; None keeps the run's own option."""

    run: str | None
    table: str | None
    columns: dict[str, str | int] | None
    labels: dict[str | int | bool | float, str] | None
    out: str | None
    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^/\\.][^/\\]*$")] | None
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
    tta: Annotated[list[str], BeforeValidator(as_list)]
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


def newest_run() -> str:
    """The newest run folder in runs/, for an example that works; a made-up one if there is none."""
    configs = list(Path("runs").glob("*/config.yaml"))
    newest = max(configs, key=lambda path: path.stat().st_mtime, default=None)
    return str(newest.parent) if newest else "runs/2026-01-31_12-00-00_ab12"


def _named_run(value: Any) -> Any:
    if value in (None, "", MISSING):
        raise ValueError(f"name a run, e.g. run={newest_run()}")
    return value


Run = Annotated[str, BeforeValidator(_named_run)]


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


def _items(value: Any) -> Any:
    """`input=a.png` is `input=[a.png]`."""
    if value in (None, "", MISSING):
        raise ValueError("name images or folders, e.g. input=scans/")
    return value if isinstance(value, list) else [value]


class PredictCommand(Fixed):
    """The keys of `python -m fracnet.predict`."""

    run: Run
    input: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_items)]
    out: Annotated[str, Field(min_length=1)] | None
    overlays: bool
    confident_errors: Annotated[Real, Field(ge=0.001, le=0.5)] | None
    device: Literal["auto", "cpu", "gpu"]
    trust: bool


class ServeCommand(Fixed):
    """The keys of `python -m fracnet.serve`."""

    run: Run
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, BeforeValidator(not_boolean), Field(ge=0, le=65535)]
    token: Annotated[str, Field(min_length=8, pattern=r"^[\w.~-]+$")] | None
    max_mb: Annotated[int, BeforeValidator(not_boolean), Field(ge=1, le=100_000)]
    max_files: Annotated[int, BeforeValidator(not_boolean), Field(ge=1, le=100_000)]
    max_seconds: Annotated[Real, Field(ge=1, le=86_400)]
    confident_errors: Annotated[Real, Field(ge=0.001, le=0.5)] | None
    device: Literal["auto", "cpu", "gpu"]
    trust: bool


class Tls(Fixed):
    """Files in PEM format; `ca` signs the certificates that callers must show."""

    cert: str | None
    key: str | None
    ca: str | None


AE_TITLE = r"[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?"
AeTitle = Annotated[str, Field(max_length=16, pattern=f"^{AE_TITLE}$")]


class NodeCommand(Fixed):
    """The keys of `python -m fracnet.node`."""

    run: Run
    aet: AeTitle
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, BeforeValidator(not_boolean), Field(ge=0, le=65535)]
    callers: Annotated[list[AeTitle], BeforeValidator(as_list)]
    tls: Tls
    quiet: Annotated[Real, Field(ge=0.1, le=86_400)]
    send_to: Annotated[list[str], BeforeValidator(as_list)]
    folder: Annotated[str, Field(min_length=1)] | None
    stow: Annotated[str, Field(min_length=1)] | None
    silent: bool
    spool: Annotated[str, Field(min_length=1)]
    disk_limit: Annotated[Real, Field(gt=0, le=1_000_000)]
    keep_hours: Annotated[Real, Field(ge=0, le=100_000)]
    max_mb: Annotated[int, BeforeValidator(not_boolean), Field(ge=1, le=1000)]
    confident_errors: Annotated[Real, Field(ge=0.001, le=0.5)] | None
    device: Literal["auto", "cpu", "gpu"]
    trust: bool


class ExportCommand(Fixed):
    """The keys of `python -m fracnet.export`."""

    run: Run
    out: Annotated[str, Field(min_length=1)] | None
    target: Literal["onnx", "web"]
    compare: bool
    benchmark: bool
    quantize: Literal["none", "int8"]
    margin: Annotated[Real, Field(gt=0, le=0.5)]
    confident_errors: Annotated[Real, Field(ge=0.001, le=0.5)]
    trust: bool


def _named_file(value: Any) -> Any:
    if value in (None, "", MISSING):
        raise ValueError("name an exported model, e.g. fracnet.verify model.onnx")
    return value


class VerifyCommand(Fixed):
    """The keys of `python -m fracnet.verify`."""

    file: Annotated[str, BeforeValidator(_named_file)]
    run: Annotated[str, Field(min_length=1)] | None
    trust: bool


class AuditData(Target):
    """A dataset; further keys are its own arguments."""

    root: str = Field(min_length=1)
    on_bad_file: Literal["error", "skip"]


class AuditCommand(Fixed):
    """The keys of `python -m fracnet.audit`."""

    data: AuditData
    data_dir: str
    out: str | None
    fail_on: Literal["hint", "warning", "leak", "error"] | None
    pictures: Annotated[int, BeforeValidator(not_boolean), Field(ge=0, le=1000)]
    workers: Annotated[int, BeforeValidator(not_boolean), Field(ge=1, le=256)] | None
    progress_bar: bool
    label_errors: Annotated[str, Field(min_length=1)] | None = None


# Keys that some choices of data= set for training.
TRAINING_KEYS = ("image_size", "model")


def without_training(plain: dict[str, Any]) -> dict[str, Any]:
    """The config without the keys that only training uses."""
    return {key: value for key, value in plain.items() if key not in TRAINING_KEYS}


def _patterns(value: Any) -> Any:
    """`runs=runs/*` is `runs=[runs/*]`."""
    if value in (None, [], MISSING):
        raise ValueError("name some runs, e.g. runs='runs/*' or runs=[runs/a,runs/b]")
    return [value] if isinstance(value, str) else value


Patterns = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_patterns)]


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
    tta: Annotated[list[str], BeforeValidator(as_list)]
    trust: bool


class DashboardCommand(Fixed):
    """The keys of `python -m fracnet.dashboard`."""

    project: Name
    entity: Name | None
    name: Annotated[str, Field(min_length=1, max_length=128)]
    folder: str | None
    keys: Annotated[list[str], BeforeValidator(as_list)]
    metric: Metric
    send: bool
    out: str | None
