"""`python -m fracnet.verify model.onnx`: check an exported model, on this machine."""

import sys

from omegaconf import DictConfig

from fracnet.config import hydra_cli
from fracnet.config.commands import VerifyCommand
from fracnet.config.fields import validated
from fracnet.utils.errors import require_packages
from fracnet.utils.progress import progress_bar


def verify(cfg: DictConfig) -> None:
    """Check the file's hashes and golden cases and, with `run`, all images of that run.

    Raises UserError for an error in the command, a changed file, or wrong answers.
    """
    command = validated(VerifyCommand, cfg)

    if command.run:
        require_packages("export", "onnx", "onnxruntime", "onnxscript")

    from fracnet.onnx_export import golden  # needs no torch

    exported = golden.open_verified(command.file, command.run, command.trust)
    if command.run:
        from fracnet.onnx_export import export_run

        compared = export_run.compare_run(exported, command.run, command.trust, progress_bar)
        print(f"Images of {command.run}: {compared.describe()}.")
    answers = "as when it was exported" if exported.model.metadata["quantized"] else "as its run"
    print(f"{command.file} is intact and answers {answers}. Research use only.")


def with_key(arguments: list[str]) -> list[str]:
    """A first argument that is a path, as in `fracnet verify model.onnx`, becomes `file=`."""
    if arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        return [f"file={arguments[0]}", *arguments[1:]]
    return arguments


if __name__ == "__main__":
    sys.argv[1:] = with_key(sys.argv[1:])
    hydra_cli.run(verify, "verify", instead="verify one model at a time")
