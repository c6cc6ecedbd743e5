"""`python -m fracnet.node`: predict the studies that a PACS or a modality sends."""

import sys
from pathlib import Path

from omegaconf import DictConfig

import fracnet
from fracnet.config import hydra_cli
from fracnet.config.commands import NodeCommand
from fracnet.config.fields import validated
from fracnet.config.overrides import model_as_run
from fracnet.inference import CAUTION
from fracnet.utils.errors import UserError, require_packages
from fracnet.utils.network import is_loopback
from fracnet.utils.processes import locked
from fracnet.utils.text import counted


def node(cfg: DictConfig) -> None:
    """Receive, predict and deliver until Ctrl-C or SIGTERM.

    Raises UserError for an error in the command, the run folder or the spool, a port in use.
    """
    command = validated(NodeCommand, cfg)
    require_packages("dicom", "pynetdicom", "highdicom", "dicomweb_client", "imagecodecs")

    if not (command.silent or command.send_to or command.folder or command.stow):
        raise UserError(
            "name where results go: send_to=PACS@host:port, folder=results or stow=http://...; "
            "or silent=true, for the tables in spool alone."
        )
    if not is_loopback(command.host) and not command.callers:
        raise UserError(
            f"host={command.host} lets other machines in: name who may send, e.g. callers=[PACS]."
        )

    from fracnet.serving import dicom_delivery, dicom_inbox, dicom_node

    tls = dicom_node.tls_context(command.tls.cert, command.tls.key, command.tls.ca)
    spool = Path(command.spool).expanduser().resolve()
    destinations: list[dicom_delivery.Destination] = [dicom_delivery.Table(spool)]
    if not command.silent:
        destinations += [dicom_delivery.Receiver(text, command.aet) for text in command.send_to]
        if command.folder:
            destinations.append(dicom_delivery.Folder(Path(command.folder).expanduser().resolve()))
        if command.stow:
            destinations.append(dicom_delivery.Stow(command.stow))
    # Not the keys: an address may hold a password, which a name does not.
    names = [getattr(each, "place", each.name) for each in destinations[1:]]
    try:
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(f"spool={command.spool} cannot be created: {error.strerror}.") from error
    with locked(spool / "lock", f"spool={command.spool}"):
        predictor = fracnet.load(
            command.run,
            trust=command.trust,
            error=command.confident_errors,
            device=command.device,
        )
        inbox = dicom_inbox.Inbox(spool, command.disk_limit * 1e9)
        settings = dicom_node.Settings(
            command.aet, command.callers, command.quiet, command.max_mb * 1e6, command.keep_hours
        )
        receiver = dicom_node.Node(
            settings, predictor, inbox, destinations, objects=not command.silent
        )
        dicom_node.stop_on_signals(receiver.stop)
        dicom_node.keep_quiet()
        server = receiver.serve((command.host, command.port), tls)
        port = server.server_address[1]
        print(
            f"{command.aet}@{command.host}:{port}{', with TLS' if tls else ''}: receives images "
            f"for {predictor.path.name}; results go to {', '.join(names) or 'the tables'}."
        )
        print(f"Received images and tables: {spool}. They are patient data. Stop with Ctrl-C.")
        if inbox.open_studies or inbox.waiting:
            print(
                f"Resuming: {counted(inbox.open_studies, 'study')} to predict and "
                f"{counted(len(inbox.waiting), 'answer')} to deliver."
            )
        print(f"\n{CAUTION}", flush=True)
        try:
            receiver.run()
        finally:
            server.ae.shutdown()
        dicom_node.log("stopped")


if __name__ == "__main__":
    sys.argv[1:] = model_as_run(sys.argv[1:])
    hydra_cli.run(node, "node", instead="one node answers any number of studies")
