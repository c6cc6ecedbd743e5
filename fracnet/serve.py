"""`python -m fracnet.serve`: predict radiographs in the browser, on this machine."""

import secrets
import sys

from omegaconf import DictConfig

import fracnet
from fracnet.config import hydra_cli
from fracnet.config.commands import ServeCommand
from fracnet.config.fields import validated
from fracnet.config.overrides import model_as_run
from fracnet.inference import CAUTION
from fracnet.utils.errors import require_packages
from fracnet.utils.network import is_loopback


def serve(cfg: DictConfig) -> None:
    """Serve the page and the JSON endpoints until Ctrl-C.

    Raises UserError for an error in the command or run folder, a missing package, a port in use.
    """
    command = validated(ServeCommand, cfg)
    require_packages("serve", "fastapi", "uvicorn")

    from fracnet.serving import app

    with app.listen(command.host, command.port) as listening:
        model = fracnet.load(
            command.run,
            trust=command.trust,
            error=command.confident_errors,
            device=command.device,
        )
        limits = app.Limits(command.max_mb, command.max_files, command.max_seconds)
        token = command.token
        if token is None and not is_loopback(command.host):
            token = secrets.token_urlsafe(16)
        place = app.address(listening, command.host, token)
        print(f"Serving {model.path.name}: {place}")
        if not is_loopback(command.host):
            print(
                "Other machines can reach this server, without encryption: use a network you trust."
            )
        print(f"Nothing is stored. Stop with Ctrl-C.\n\n{CAUTION}", flush=True)
        app.make_server(app.make_app(model, limits, token)).run(sockets=[listening])


if __name__ == "__main__":
    sys.argv[1:] = model_as_run(sys.argv[1:])
    hydra_cli.run(serve, "serve", instead="one server answers any number of images")
