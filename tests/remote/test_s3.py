"""Trainings that upload to a real S3 server, also where it refuses or is not there."""

from __future__ import annotations

import logging
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import fsspec
import pytest
import torch
from moto.server import ThreadedMotoServer

from trainer_torch.testing import comparable, logged_points, small_trainer

SAVES = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a server with a bucket, to which the environment points."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with urlopen(Request(f"{url}/bucket", method="PUT")):
        pass
    variables = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "AKIAUSEDINTESTSONLY1",
        "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": str(tmp_path / "machine"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield url
    server.stop()


def manifests(address: str) -> set[str]:
    """Return the names of the checkpoints at `address` that have a manifest."""
    fs, root = fsspec.core.url_to_fs(address)
    fs.invalidate_cache()
    return {path.split("/")[-2] for path in fs.find(root) if path.endswith("/manifest.json")}


def test_a_training_continues_from_s3_on_an_empty_machine(tmp_path: Path, url: str) -> None:
    address = "s3://bucket/a run/läuft"
    whole = small_trainer(tmp_path / "whole", **SAVES)
    whole.train()
    trained = small_trainer(address, **SAVES)
    trained.train()
    assert manifests(address) == {"checkpoint-10", "checkpoint-12"}
    fs, root = fsspec.core.url_to_fs(address)
    fs.rm(f"{root}/checkpoint-12/manifest.json")
    shutil.rmtree(tmp_path / "machine")
    resumed = small_trainer(address, **SAVES)
    resumed.train(resume_from_checkpoint=True)
    assert str(resumed.run.resumed_from).endswith("checkpoint-10")
    assert comparable(logged_points(resumed)) == comparable(logged_points(whole))
    for mine, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("fault", ["no bucket", "no server"])
def test_a_store_that_fails_does_not_end_a_training(
    tmp_path: Path,
    url: str,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trainer_torch")
    if fault == "no server":
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    address = "s3://bucket/run" if fault == "no server" else "s3://not-a-bucket/run"
    trained = small_trainer(address, **SAVES, upload_timeout=1)
    trained.train()
    assert trained.state.global_step == 12
    kept = {path.name for path in Path(trained.args.output_dir).glob("checkpoint-*")}
    assert len(kept) == 6
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert any("checkpoint-12" in text for text in warnings)
    assert "the-secret-of-the-tests" not in caplog.text
    if fault == "no bucket":
        with pytest.raises(FileNotFoundError):
            manifests(address)
