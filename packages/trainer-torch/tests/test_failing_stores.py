"""Stores that refuse, fail or hang, and addresses with unusual characters."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from failing_store import FailingStore, empty_store, refusing
from small import arguments, trainer, warned

from callback_core import TrainerCallback
from trainer_torch.storage.checkpoint import checkpoint_path
from trainer_torch.storage.remote import RemoteDirectory
from trainer_torch.storage.remote_files import list_own_files, upload_files
from trainer_torch.storage.uploader import Uploader

EVERY_STEP: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty cache and an empty store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    monkeypatch.setattr("trainer_torch.storage.remote._PAUSE", 0.0)
    monkeypatch.setattr("trainer_torch.storage.uploader._FIRST_PAUSE", 0.0)
    monkeypatch.setattr("trainer_torch.storage.uploader._PAUSE_AT_END", 0.0)
    empty_store()
    return tmp_path / "machine"


ADDRESS = "failing://bucket/run"

PATIENCE = 1.0
"""The seconds that tests wait for uploads that never succeed."""


def names(address: str) -> list[str]:
    """Return the names of the checkpoints that are complete at `address`, the oldest first."""
    found = RemoteDirectory(address).list_checkpoints()
    return [one.name for one in found if one.find_fault() is None]


@pytest.mark.parametrize("store", ["failing://bucket", "file://{}"])
@pytest.mark.parametrize("name", ["run[1]", "run?", "r*1", "run[!2]"])
def test_rotation_deletes_only_in_its_own_directory(tmp_path: Path, store: str, name: str) -> None:
    beside, own = (f"{store.format(tmp_path / 'store')}/{one}" for one in ("run1", name))
    trainer(beside, **{**EVERY_STEP, "max_steps": 3}).train()
    trained = trainer(own, **EVERY_STEP, save_total_limit=2)
    trained.train()
    assert names(beside) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert names(own) == ["checkpoint-5", "checkpoint-6"]
    files = RemoteDirectory(own).list_files()
    assert not [one for one in files if one.startswith("checkpoint-1/")]
    assert not (tmp_path / "store" / name / "checkpoint-1").exists()


def saved(tmp_path: Path, steps: int = 1) -> list[Path]:
    """Return the checkpoints of a training, of steps 1 to `steps`, which are not uploaded."""
    trained = trainer(tmp_path / "local", **{**EVERY_STEP, "max_steps": steps})
    trained.train()
    return [checkpoint_path(trained.args.output_dir, step + 1) for step in range(steps)]


def test_a_file_that_fails_is_tried_again_without_those_that_are_uploaded(tmp_path: Path) -> None:
    [checkpoint] = saved(tmp_path)
    fails, puts = refusing("put", "optimizer.pt", times=5), []

    def before(call: str, path: str) -> None:
        if call == "put" and "checkpoint-1" in path:
            puts.append(path)
        fails(call, path)

    empty_store(before)
    uploader = Uploader(ADDRESS, checkpoint.parent, None)
    uploader.submit(checkpoint)
    assert uploader.wait(60)
    assert names(ADDRESS) == ["checkpoint-1"]
    assert [path for path in puts if puts.count(path) > 1] == [
        "/bucket/run/checkpoint-1/optimizer.pt"
    ] * 6


@pytest.mark.parametrize("call", ["put", "answer"])
def test_the_wait_ends_although_one_file_keeps_failing(
    tmp_path: Path, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    [checkpoint] = saved(tmp_path)
    empty_store(refusing(call, "optimizer.pt", times=100_000))
    uploader = Uploader(ADDRESS, checkpoint.parent, None)
    uploader.submit(checkpoint)
    assert not uploader.wait(PATIENCE)
    assert names(ADDRESS) == []
    assert any("checkpoint-1" in text for text in warned(caplog))


def test_only_regular_files_belong_in_a_store(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results.json").write_text("{}")
    Path("linked.json").symlink_to("results.json")
    Path("nowhere").symlink_to("absent")
    Path("itself").symlink_to("itself")
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as control:
        control.bind("control")
        assert set(list_own_files(tmp_path)) == {"results.json", "linked.json"}


def test_a_file_that_fails_does_not_keep_checkpoints_and_other_files_from_the_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(tmp_path, 2)
    for name in ("a.json", "b.json", "c.json"):
        (checkpoints[0].parent / name).write_text("{}")
    empty_store(refusing("put", "b.json", times=100_000))
    uploader = Uploader(ADDRESS, checkpoints[0].parent, None)
    for checkpoint in checkpoints:
        uploader.submit(checkpoint)
    assert not uploader.wait(PATIENCE)
    assert names(ADDRESS) == ["checkpoint-1", "checkpoint-2"]
    assert {"a.json", "c.json"} <= set(RemoteDirectory(ADDRESS).list_files())
    told = [text for text in warned(caplog) if "b.json" in text]
    assert len(told) == 2  # once, and at the end
    assert "checkpoint-" not in told[1]


def test_a_file_that_failed_is_uploaded_later(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{}")
    empty_store(refusing("put", "b.json", times=5))
    uploader = Uploader(ADDRESS, tmp_path, None)
    uploader.submit_files()
    assert uploader.wait(60)
    assert set(RemoteDirectory(ADDRESS).list_files()) == {"b.json"}


def test_the_progress_of_a_tracker_is_not_in_a_store_without_its_journal(tmp_path: Path) -> None:
    folder = tmp_path / "tracking" / "run"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text("{}\n")
    progress = folder / "some.progress.json"
    progress.write_text("3")

    def before(call: str, path: str) -> None:
        if path.endswith("journal.jsonl"):
            progress.write_text("9999")  # the tracker goes on
            if not journal_is_accepted:
                raise PermissionError(path)

    empty_store(before)
    remote, known = RemoteDirectory(ADDRESS), {}  # type: ignore[var-annotated]
    journal_is_accepted = False
    assert set(upload_files(remote, tmp_path, known, lambda: None)) == {
        "tracking/run/journal.jsonl"
    }
    assert remote.list_files() == {}
    progress.write_text("3")
    journal_is_accepted = True
    assert not upload_files(remote, tmp_path, known, lambda: None)
    assert remote.read("tracking/run/some.progress.json") == b"3"
    assert not upload_files(remote, tmp_path, known, lambda: None)
    assert remote.read("tracking/run/some.progress.json") == b"9999"


def test_a_checkpoint_that_is_no_longer_uploaded_leaves_no_files(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2)
    empty_store(refusing("put", "checkpoint-1/optimizer.pt", times=100_000))
    uploader = Uploader(ADDRESS, checkpoints[0].parent, 1)
    uploader.submit(checkpoints[0])
    assert not uploader.wait(PATIENCE)
    uploader.submit(checkpoints[1])
    assert uploader.wait(60)
    assert names(ADDRESS) == ["checkpoint-2"]
    assert not [path for path in RemoteDirectory(ADDRESS).list_files() if "checkpoint-1" in path]


def test_a_store_that_refuses_deletes_is_told_once_and_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(tmp_path, 4)
    empty_store(refusing("rm", "", times=2))
    uploader = Uploader(ADDRESS, checkpoints[0].parent, 1)
    kept = []
    for checkpoint in checkpoints:
        uploader.submit(checkpoint)
        assert uploader.wait(60)
        kept.append([int(name[-1]) for name in names(ADDRESS)])
    assert kept == [[1], [1, 2], [1, 3], [4]]
    assert len(warned(caplog)) == 1


def future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    """Train to `ADDRESS` on another machine, whose clock is an hour ahead."""
    now = time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now() + 3600)
        patched.setenv("XDG_CACHE_HOME", str(tmp_path / "other machine"))
        trainer(ADDRESS, **{**EVERY_STEP, **changed}).train()


def test_a_new_training_replaces_one_whose_clock_was_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    future(tmp_path, monkeypatch)
    before = {name: RemoteDirectory(ADDRESS).checkpoint(name).content for name in names(ADDRESS)}
    assert len(before) == 6
    trained = trainer(ADDRESS, **EVERY_STEP, save_total_limit=2)
    trained.train()
    assert names(ADDRESS) == ["checkpoint-5", "checkpoint-6"]
    for name in names(ADDRESS):
        assert RemoteDirectory(ADDRESS).checkpoint(name).content != before[name]


def test_a_checkpoint_is_not_deleted_for_one_in_the_store_whose_clock_was_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    future(tmp_path, monkeypatch)
    checkpoints = saved(tmp_path, 2)
    FailingStore.before = staticmethod(refusing("put", "", times=100_000))
    uploader = Uploader(ADDRESS, checkpoints[0].parent, 1)
    for checkpoint in checkpoints:
        uploader.submit(checkpoint)
    uploader.wait(PATIENCE)
    assert not any(uploader.may_delete(checkpoint) for checkpoint in checkpoints)
    FailingStore.before = staticmethod(lambda call, path: None)
    uploader.submit(checkpoints[1])
    uploader.wait(60)
    assert all(uploader.may_delete(checkpoint) for checkpoint in checkpoints)


def test_an_upload_that_hangs_is_told_once_during_the_training(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []
    goes_on = threading.Event()

    def hang(call: str, path: str) -> None:
        goes_on.wait(60)

    empty_store(hang)

    class Counts(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            told.extend(warned(caplog))

    trainer(ADDRESS, Counts(), **EVERY_STEP, upload_timeout=1e-9).train()
    goes_on.set()
    assert len(told) == 1


def test_the_model_can_be_saved_at_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = trainer(tmp_path / "own")
    trained.save_model(ADDRESS)
    assert list(tmp_path.iterdir()) == []
    RemoteDirectory(ADDRESS).download("model.safetensors", tmp_path / "model.safetensors")
    trained.save_model(tmp_path / "here")
    saved_here = tmp_path / "here" / "model.safetensors"
    assert (tmp_path / "model.safetensors").read_bytes() == saved_here.read_bytes()


def test_a_model_that_cannot_be_saved_at_an_address_is_an_error(tmp_path: Path) -> None:
    trained = trainer(tmp_path / "own")
    empty_store(refusing("put", "model", times=2))
    trained.save_model(ADDRESS)
    empty_store(refusing("put", "model"))
    with pytest.raises(ConnectionError, match=ADDRESS):
        trained.save_model(ADDRESS)
    with pytest.raises(ValueError, match="nowhere"):
        trained.save_model("nowhere://bucket/run")


def flip(file: Path) -> None:
    """Change one byte of `file`."""
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("how", [True, "auto", "named"])
def test_a_damaged_local_checkpoint_is_downloaded_again(how: str | bool) -> None:
    three: dict[str, Any] = {**EVERY_STEP, "max_steps": 3, "save_total_limit": 2}
    trained = trainer(ADDRESS, **three)
    trained.train()
    newest = Path(trained.args.output_dir, "checkpoint-3")
    flip(newest / "optimizer.pt")
    resumed = trainer(ADDRESS, **{**EVERY_STEP, "save_total_limit": 2})
    resumed.train(resume_from_checkpoint=str(newest) if how == "named" else how)
    assert resumed.run.resumed_from == newest
    assert names(ADDRESS) == ["checkpoint-5", "checkpoint-6"]


def test_an_older_whole_local_checkpoint_is_used_if_it_is_newer_than_those_in_the_store() -> None:
    trained = trainer(ADDRESS, **{**EVERY_STEP, "max_steps": 3})
    trained.train()
    flip(Path(trained.args.output_dir, "checkpoint-3", "optimizer.pt"))
    for name in ("checkpoint-2", "checkpoint-3"):
        RemoteDirectory(ADDRESS).remove_checkpoint(name)
    resumed = trainer(ADDRESS, **EVERY_STEP)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.run.resumed_from == Path(trained.args.output_dir, "checkpoint-2")


@pytest.mark.parametrize("how", [True, "auto"])
def test_the_error_names_the_store_if_nothing_is_complete(how: str | bool) -> None:
    trained = trainer(ADDRESS, **{**EVERY_STEP, "max_steps": 1})
    trained.train()
    flip(Path(trained.args.output_dir, "checkpoint-1", "optimizer.pt"))
    RemoteDirectory(ADDRESS).remove_checkpoint("checkpoint-1")
    with pytest.raises(FileNotFoundError, match=ADDRESS):
        trainer(ADDRESS, **EVERY_STEP).train(resume_from_checkpoint=how)


def test_a_checkpoint_of_another_name_is_resumed_from_by_its_address(tmp_path: Path) -> None:
    trainer(ADDRESS, **{**EVERY_STEP, "max_steps": 2}).train()
    store = fsspec.filesystem("failing")
    for path in store.find("/bucket/run/checkpoint-2"):
        store.copy(path, path.replace("/run/checkpoint-2/", "/kept/best/"))
    for number in range(2):
        resumed = trainer(tmp_path / f"own-{number}", **EVERY_STEP)
        resumed.train(resume_from_checkpoint="failing://bucket/kept/best")
        assert resumed.run.resumed_from is not None
        assert resumed.run.resumed_from.name == "best"
        assert resumed.state.log_history[0]["step"] == 1
        FailingStore.before = staticmethod(refusing("get", ""))  # it is here already
    with pytest.raises(FileNotFoundError, match="kept/worst"):
        resumed.train(resume_from_checkpoint="failing://bucket/kept/worst")


@pytest.mark.parametrize("protocol", ["file", "local"])
@pytest.mark.parametrize("where", ["own", "own/backup", "linked/backup", "own/..", ""])
def test_an_address_in_output_dir_or_around_it_is_refused(
    tmp_path: Path, protocol: str, where: str
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "linked").symlink_to("own")
    with pytest.raises(ValueError, match="remote_output_dir"):
        arguments(tmp_path / "own", remote_output_dir=f"{protocol}://{tmp_path}/{where}")
    arguments(tmp_path / "own", remote_output_dir=f"{protocol}://{tmp_path}/owned")


def test_an_address_around_the_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="output_dir"):
        arguments(f"file://{tmp_path}")


@pytest.mark.parametrize("limit", [None, 2])
def test_a_manifest_that_cannot_be_read_hinders_no_other_checkpoint(
    cache: Path, limit: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(ADDRESS, **{**EVERY_STEP, "max_steps": 3}).train()
    shutil.rmtree(cache)
    FailingStore.before = staticmethod(refusing("get", "checkpoint-2/manifest", times=100_000))
    resumed = trainer(ADDRESS, **EVERY_STEP, save_total_limit=limit)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.run.resumed_from is not None
    assert resumed.run.resumed_from.name == "checkpoint-3"
    assert any("checkpoint-2" in text for text in warned(caplog))
    FailingStore.before = staticmethod(lambda call, path: None)
    assert "checkpoint-2" in names(ADDRESS)  # it may be complete, so it is not deleted
    assert names(ADDRESS)[-1] == "checkpoint-6"


def test_a_store_whose_manifests_cannot_be_read_is_an_error(cache: Path) -> None:
    trainer(ADDRESS, **{**EVERY_STEP, "max_steps": 3}).train()
    shutil.rmtree(cache)
    FailingStore.before = staticmethod(refusing("get", "manifest", times=100_000))
    with pytest.raises(ConnectionError, match=ADDRESS):
        trainer(ADDRESS, **EVERY_STEP).train(resume_from_checkpoint=True)


def test_a_download_of_a_machine_that_was_killed_is_removed() -> None:
    trained = trainer(ADDRESS, **{**EVERY_STEP, "max_steps": 3})
    trained.train()
    left = Path(trained.args.output_dir, ".checkpoint-2.pod-1.download")
    left.mkdir()
    trainer(ADDRESS, **EVERY_STEP).train(resume_from_checkpoint=True)
    assert not left.exists()
