"""Writes a run's parameters and its end for TensorBoard's HParams tab.

Each goes to its own file, so that it can be replaced: TensorBoard uses only the first declaration.
The tab collects the names of parameters and metrics from the existing runs. Other writers declare
these names in advance; such a declaration would hide names that only other runs have.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any, Final

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

from callback_core.tracking import Status
from callback_tensorboard.event_file import EventFile

_PARAMETERS: Final = ".hparams"
_END: Final = ".ended"
_STEP: Final = -1
"""A step before all points, so that rewinding never forgets this event."""


def write_parameters(directory: Path, parameters: Mapping[str, Any], began: float) -> None:
    """Write the parameters of the run in `directory`, and replace earlier ones.

    Only numbers, strings and booleans are written.

    Args:
        directory: The directory of the run.
        parameters: The parameters.
        began: When the training began, in seconds since 1970.
    """
    info = SessionStartInfo(start_time_secs=began)
    for name, value in parameters.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, (int, float)):
            info.hparams[name].number_value = value
        elif isinstance(value, str):
            info.hparams[name].string_value = value
    content = HParamsPluginData(session_start_info=info)
    _replace(directory, _PARAMETERS, metadata.SESSION_START_INFO_TAG, content)


def write_end(directory: Path, status: Status, at: float) -> None:
    """Write how the run in `directory` ended, and when, in seconds since 1970."""
    ended = STATUS_SUCCESS if status == "finished" else STATUS_FAILURE
    content = HParamsPluginData(session_end_info=SessionEndInfo(status=ended, end_time_secs=at))
    _replace(directory, _END, metadata.SESSION_END_INFO_TAG, content)


def forget_end(directory: Path) -> None:
    """Delete the end of the run in `directory`, because the run continues."""
    _remove(directory, _END)


def _replace(directory: Path, suffix: str, tag: str, content: HParamsPluginData) -> None:
    _remove(directory, suffix)
    value = Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(content), tensor=metadata.NULL_TENSOR
    )
    file = EventFile(directory, suffix=suffix)
    try:
        file.add([Event(wall_time=time(), step=_STEP, summary=Summary(value=[value]))])
    finally:
        file.close()


def _remove(directory: Path, suffix: str) -> None:
    for file in directory.glob(f"events.out.tfevents.*{suffix}"):
        with suppress(FileNotFoundError):
            file.unlink()
