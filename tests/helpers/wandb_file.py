"""Read a `.wandb` file: LevelDB's log format around protobuf records.

A file starts with a header of 7 bytes and goes on in blocks of 32 KiB. A record is stored in one
or more chunks, each with a header of its own: CRC-32C (4 bytes), length (2), kind (1).
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, FILE_HEADER, CHUNK_HEADER = 32 * 1024, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class Stored:
    """What a run left in its file. `exit_code` is None where the run never ended.

    metrics: declared ones, with their step and how their best value is kept.
    """

    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    exit_code: int | None = None
    name: str = ""
    group: str = ""
    job_type: str = ""
    id: str = ""
    host: str = ""
    tags: tuple[str, ...] = ()


def records(path: Path) -> Iterator[Record]:
    """The records that are there in full, in order; a torn end is left out."""
    content = path.read_bytes()
    assert content[:4] == b":W&B", content[:FILE_HEADER]
    whole, position = b"", FILE_HEADER
    while position + CHUNK_HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < CHUNK_HEADER:  # too short for a header: filled with zeros
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        chunk = content[position + CHUNK_HEADER : position + CHUNK_HEADER + length]
        if kind not in (FULL, FIRST, MIDDLE, LAST) or len(chunk) < length:
            return
        position += CHUNK_HEADER + length
        whole = chunk if kind in (FULL, FIRST) else whole + chunk
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(whole)
            yield record


def read(path: Path) -> Stored:
    """The contents of a run that tests check."""
    stored = Stored()
    for record in records(path):
        kind = str(record.WhichOneof("record_type"))
        stored.kinds.append(kind)
        if kind == "run":
            run = record.run
            stored.id, stored.host, stored.name = run.run_id, run.host, run.display_name
            stored.group, stored.job_type = run.run_group, run.job_type
            stored.tags = tuple(run.tags)
            _update(stored.config, run.config.update)
        elif kind == "config":
            _update(stored.config, record.config.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _update(row, record.history.item)
            stored.history.append(row)
        elif kind == "summary":
            _update(stored.summary, record.summary.update)
        elif kind == "metric":
            metric = record.metric
            best = [end for end in ("min", "max") if getattr(metric.summary, end)]
            stored.metrics[metric.name or metric.glob_name] = (metric.step_metric, best)
        elif kind == "files":
            stored.files += [file.path for file in record.files.files]
        elif kind == "exit":
            stored.exit_code = record.exit.exit_code
    return stored


def only(run: Path) -> Path:
    """The single `.wandb` file of a run folder."""
    (path,) = sorted(run.glob("wandb/*run-*/*.wandb"))
    return path


def _update(into: dict[str, Any], items: Any) -> None:
    for item in items:
        into["/".join(item.nested_key) if item.nested_key else item.key] = json.loads(
            item.value_json
        )
