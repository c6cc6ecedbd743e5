"""`python -m fracnet.export`: write a finished run as one ONNX file that proves itself."""

from pathlib import Path

from omegaconf import DictConfig

from fracnet.config import hydra_cli
from fracnet.config.commands import ExportCommand
from fracnet.config.fields import validated
from fracnet.utils.errors import require_packages
from fracnet.utils.progress import progress_bar


def export(cfg: DictConfig) -> None:
    """Export the run into a new folder, and print what was compared.

    Raises UserError for an error in the command or run folder, or a model that cannot be exported.
    """
    command = validated(ExportCommand, cfg)

    require_packages("export", "onnx", "onnxruntime", "onnxscript")

    # Light: wrong paths are reported at once.
    from fracnet.runs.run_folder import RunFolder

    folder = RunFolder.open(Path(command.run).expanduser().resolve())
    out = Path(command.out).expanduser() if command.out else folder.path / "export"

    from fracnet.onnx_export import export_run
    from fracnet.serving import web_page

    web = command.target == "web"
    if web:
        web_page.check_built()
    result = export_run.export_run(
        export_run.open_predictor(folder, out, command.trust, command.confident_errors),
        out,
        compare=command.compare,
        benchmark=command.benchmark,
        margin=command.margin if command.quantize == "int8" else None,
        extra=web_page.write_web_page if web else None,
        progress=progress_bar,
    )
    export_run.print_export(result)


if __name__ == "__main__":
    hydra_cli.run(export, "export", instead="export one run at a time")
