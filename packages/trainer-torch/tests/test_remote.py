"""Trainings whose output_dir is an address: what is uploaded, kept, deleted and resumed from."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
import upload_kills
from small import arguments, logged, trainer, warned

from callback_core import TrainerCallback
from trainer_torch import Trainer
from trainer_torch.addresses import check_address, shown
from trainer_torch.storage.checkpoint import find_fault, list_checkpoints
from trainer_torch.storage.remote import RemoteDirectory
from trainer_torch.storage.uploader import Uploader

EVERY_STEP: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6}


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of an empty store, for a machine with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    return f"file://{tmp_path / 'store'}/ein Läufchen"


def machine(tmp_path: Path) -> Path:
    return tmp_path / "machine"


def names(address: str) -> list[str]:
    """Return the names of the checkpoints that are whole at `address`, the oldest first."""
    found = RemoteDirectory(address).list_checkpoints()
    return [one.name for one in found if one.find_fault() is None]


def same_end(one: Any, other: Any) -> bool:
    """Return whether two trainings ended with the same weights and losses."""
    weights = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return logged(one, "loss") == logged(other, "loss") and all(
        torch.equal(mine, theirs) for mine, theirs in weights
    )


def test_an_address_becomes_a_directory_in_the_cache(tmp_path: Path, address: str) -> None:
    args = arguments(address)
    assert args.remote_output_dir == address
    assert Path(args.output_dir).is_relative_to(machine(tmp_path))
    assert arguments(address + "/").output_dir == args.output_dir
    assert arguments(address + "2").output_dir != args.output_dir
    both = arguments(tmp_path / "own", remote_output_dir=address)
    assert both.output_dir == str(tmp_path / "own")
    assert both.remote_output_dir == address


def test_addresses_that_are_shown_alike_have_directories_of_their_own() -> None:
    texts = [f"memory://bucket/token={number}/run" for number in range(3)]
    assert len({shown(text) for text in texts}) == 1
    assert len({arguments(text).output_dir for text in texts}) == 3
    users = [f"ftp://{user}@host/run" for user in ("one:old", "one:new", "two:old")]
    assert len({shown(text) for text in users}) == 1
    assert len({arguments(text).output_dir for text in users}) == 2  # of two users


@pytest.mark.parametrize("name", ["output_dir", "remote_output_dir", "resume_from_checkpoint"])
@pytest.mark.parametrize("wrong", ["nowhere://bucket/run", "file://"])
def test_a_wrong_address_is_an_error_at_construction(tmp_path: Path, name: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=name):
        given: dict[str, Any] = {"output_dir": tmp_path, name: wrong}
        arguments(**given)


def test_two_addresses_are_an_error(address: str) -> None:
    with pytest.raises(ValueError, match="remote_output_dir"):
        arguments(address, remote_output_dir="memory://other")


def test_a_missing_package_is_named_with_what_installs_it() -> None:
    fsspec.register_implementation("unheard", "no_such_package.FileSystem", errtxt="Install it")
    with pytest.raises(ModuleNotFoundError, match="pip install no_such_package"):
        check_address("output_dir", "unheard://bucket/run")


def test_credentials_in_an_address_are_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "pa55-w0rd"
    caplog.set_level(logging.DEBUG, "trainer_torch")
    args = arguments(f"ftp://user:{secret}@127.0.0.1:1/run")
    assert secret not in args.output_dir
    uploader = Uploader(str(args.remote_output_dir), tmp_path, None)
    (tmp_path / "file.json").write_text("{}")
    uploader.submit_files()
    assert not uploader.wait(0)
    assert warned(caplog)
    assert secret not in caplog.text


def test_everything_is_uploaded_and_resumed_on_an_empty_machine(
    tmp_path: Path, address: str
) -> None:
    whole = trainer(tmp_path / "whole", **EVERY_STEP)
    whole.train()
    first = trainer(address, **{**EVERY_STEP, "save_steps": 2}, num_train_epochs=2)
    first.train(resume_from_checkpoint="auto")
    assert names(address) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    shutil.rmtree(machine(tmp_path))
    shutil.rmtree(tmp_path / "store" / "ein Läufchen" / "checkpoint-6")
    resumed = trainer(address, **EVERY_STEP)
    resumed.train(resume_from_checkpoint="auto")
    assert resumed.run.resumed_from == Path(resumed.args.output_dir) / "checkpoint-4"
    assert same_end(resumed, whole)


class AddsToCheckpoints(TrainerCallback):
    """Writes a file to each new checkpoint, and reads that of the checkpoint to resume from."""

    read: str | None = None

    def on_save(
        self, args: Any, state: Any, control: Any, checkpoint_dir: str = "", **kwargs: Any
    ) -> None:
        (Path(checkpoint_dir) / "added").mkdir()
        (Path(checkpoint_dir) / "added" / "step.txt").write_text(str(state.global_step))

    def on_train_begin(
        self, args: Any, state: Any, control: Any, checkpoint_dir: str | None = None, **kwargs: Any
    ) -> None:
        if checkpoint_dir is not None:
            self.read = (Path(checkpoint_dir) / "added" / "step.txt").read_text()


@pytest.mark.parametrize("save_async", [False, True])
def test_what_a_callback_adds_to_a_checkpoint_in_on_save_is_uploaded_and_downloaded(
    tmp_path: Path, address: str, save_async: bool
) -> None:
    settings = {**EVERY_STEP, "save_steps": 3, "save_async": save_async}
    trainer(address, AddsToCheckpoints(), **settings).train()
    shutil.rmtree(machine(tmp_path))
    reads = AddsToCheckpoints()
    trainer(address, reads, **{**settings, "max_steps": 7}).train("auto")
    assert reads.read == "6"


def refuse_added_files(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Let a method of the store refuse what `AddsToCheckpoints` adds."""
    permitted = getattr(RemoteDirectory, method)

    def refuse(remote: RemoteDirectory, *paths: Path | str) -> None:
        if any("/added/" in str(path) for path in paths):
            raise PermissionError(method)
        permitted(remote, *paths)

    monkeypatch.setattr(RemoteDirectory, method, refuse)


def test_a_file_that_a_callback_adds_and_the_store_refuses_holds_up_no_checkpoint(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_added_files(monkeypatch, "upload")
    trainer(address, AddsToCheckpoints(), **{**EVERY_STEP, "save_steps": 3}).train()
    assert names(address) == ["checkpoint-3", "checkpoint-6"]
    assert len([message for message in warned(caplog) if "added" in message]) == 1


def test_what_a_callback_added_and_the_store_lost_holds_up_no_training(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(address, AddsToCheckpoints(), **{**EVERY_STEP, "save_steps": 3}).train()
    shutil.rmtree(machine(tmp_path))
    refuse_added_files(monkeypatch, "download")
    monkeypatch.setattr("trainer_torch.storage.remote._PAUSE", 0.0)
    resumed = trainer(address, **{**EVERY_STEP, "max_steps": 7})
    resumed.train("auto")
    assert resumed.state.global_step == 7
    assert [message for message in warned(caplog) if "added" in message]


def test_an_upload_begins_although_on_save_raises(address: str) -> None:
    class Raises(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise ValueError("on_save")

    with pytest.raises(ValueError, match="on_save"):
        trainer(address, Raises(), **{**EVERY_STEP, "save_steps": 3}).train()
    assert names(address) == ["checkpoint-3"]


def test_a_checkpoint_without_a_manifest_or_of_another_size_is_not_complete(
    tmp_path: Path, address: str
) -> None:
    trainer(address, **EVERY_STEP).train()
    store = tmp_path / "store" / "ein Läufchen"
    (store / "checkpoint-6" / "manifest.json").unlink()
    with (store / "checkpoint-5" / "optimizer.pt").open("ab") as file:
        file.write(b"x")
    content = (store / "checkpoint-4" / "manifest.json").read_bytes()
    (store / "checkpoint-4" / "manifest.json").write_bytes(content[: len(content) // 2])
    shutil.rmtree(machine(tmp_path))
    resumed = trainer(address, **EVERY_STEP)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.run.resumed_from is not None
    assert resumed.run.resumed_from.name == "checkpoint-3"
    assert names(address)[-1] == "checkpoint-6"


def test_a_changed_byte_is_recognized_after_the_download(tmp_path: Path, address: str) -> None:
    trainer(address, **EVERY_STEP).train()
    damaged = tmp_path / "store" / "ein Läufchen" / "checkpoint-6" / "optimizer.pt"
    content = bytearray(damaged.read_bytes())
    content[100] ^= 1
    damaged.write_bytes(content)
    shutil.rmtree(machine(tmp_path))
    resumed = trainer(address, **EVERY_STEP)
    with pytest.raises(OSError, match=r"optimizer\.pt"):
        resumed.train(resume_from_checkpoint=f"{address}/checkpoint-6")
    assert list_checkpoints(resumed.args.output_dir) == []


def test_the_newer_one_of_both_places_is_resumed_from(tmp_path: Path, address: str) -> None:
    trainer(address, **{**EVERY_STEP, "max_steps": 4}).train()
    shutil.copytree(machine(tmp_path), tmp_path / "stale")
    trainer(address, **EVERY_STEP).train(True)
    shutil.rmtree(machine(tmp_path))
    shutil.copytree(tmp_path / "stale", machine(tmp_path))
    resumed = trainer(address, **EVERY_STEP)
    resumed.train(True)
    assert resumed.run.resumed_from == Path(resumed.args.output_dir) / "checkpoint-6"
    shutil.rmtree(tmp_path / "store")
    again = trainer(address, **{**EVERY_STEP, "max_steps": 7})
    again.train(True)
    assert again.run.resumed_from == Path(resumed.args.output_dir) / "checkpoint-6"
    assert {"checkpoint-6", "checkpoint-7"} <= set(names(address))


def test_a_local_training_resumes_from_a_checkpoint_at_an_address(
    tmp_path: Path, address: str
) -> None:
    whole = trainer(address, **EVERY_STEP)
    whole.train()
    shutil.rmtree(machine(tmp_path))
    for number, where in enumerate((f"{address}/checkpoint-6", address)):
        resumed = trainer(tmp_path / f"own-{number}", **{**EVERY_STEP, "max_steps": 8})
        resumed.train(where)
        assert logged(resumed, "loss")[:6] == logged(whole, "loss")
        assert len(list_checkpoints(tmp_path / f"own-{number}")) == 2
    with pytest.raises(FileNotFoundError, match="checkpoint-9"):
        resumed.train(f"{address}/checkpoint-9")


@pytest.mark.parametrize("best", [1, 3])
def test_the_limit_holds_in_both_places_but_for_the_best(
    tmp_path: Path, address: str, best: int
) -> None:
    changed = {**EVERY_STEP, "eval_strategy": "steps", "eval_steps": 1, "save_total_limit": 2}
    changed |= {"metric_for_best_model": "score", "load_best_model_at_end": True}
    trained: Trainer

    def compute_metrics(prediction: Any) -> dict[str, float]:
        return {"score": float(trained.state.global_step == best)}

    given = {"compute_metrics": compute_metrics}
    trained = trainer(address, given=given, **changed)
    trained.train()
    assert f"checkpoint-{best}" in names(address)
    assert "checkpoint-6" in names(address)
    assert len(names(address)) <= 3
    assert {one.name for one in list_checkpoints(trained.args.output_dir)} <= set(names(address))
    shutil.rmtree(machine(tmp_path))
    resumed = trainer(address, given=given, **changed)
    resumed.train(True)
    assert resumed.state.best_model_checkpoint is not None
    assert find_fault(Path(resumed.state.best_model_checkpoint)) is None


def test_checkpoints_stay_while_the_store_cannot_be_written(
    tmp_path: Path, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    store.write_text("a file in place of the directory")
    kept = trainer(address, **EVERY_STEP, save_total_limit=1, upload_timeout=0)
    kept.train()
    assert len(list_checkpoints(kept.args.output_dir)) == 6
    assert any("checkpoint-6" in text for text in warned(caplog))
    store.unlink()
    resumed = trainer(address, **{**EVERY_STEP, "max_steps": 7}, save_total_limit=1)
    resumed.train(True)
    assert names(address) == ["checkpoint-7"]
    assert [one.name for one in list_checkpoints(kept.args.output_dir)] == ["checkpoint-7"]


def test_a_new_run_takes_the_place_of_an_older_longer_one(address: str) -> None:
    trainer(address, **{**EVERY_STEP, "max_steps": 9, "save_steps": 3}).train()
    trainer(address, **EVERY_STEP, save_total_limit=2).train()
    assert names(address) == ["checkpoint-5", "checkpoint-6"]


def test_a_checkpoint_that_is_saved_again_replaces_the_one_in_the_store(address: str) -> None:
    trained = trainer(address, **EVERY_STEP)
    trained.train()
    before = RemoteDirectory(address).checkpoint("checkpoint-6")
    with torch.no_grad():
        next(trained.model.parameters()).zero_()
    trained.save_checkpoint()
    after = RemoteDirectory(address).checkpoint("checkpoint-6")
    assert after.find_fault() is None
    assert after.written > before.written


def test_weights_and_results_are_uploaded_too(address: str) -> None:
    trained = trainer(address, **EVERY_STEP)
    trained.train()
    trained.save_model()
    trained.save_metrics("train", {"accuracy": 1.0})
    trained.save_state()
    files = RemoteDirectory(address).list_files()
    assert {"model.safetensors", "train_results.json", "trainer_state.json"} <= set(files)


def test_checkpoints_of_weights_alone_are_uploaded_and_not_resumed_from(address: str) -> None:
    trained = trainer(address, **EVERY_STEP, save_only_model=True)
    trained.train()
    assert len(names(address)) == 6
    shutil.rmtree(trained.args.output_dir)
    with pytest.raises(ValueError, match="save_only_model"):
        trained.train(True)


def test_nothing_is_left_running_after_a_training_or_its_error(address: str) -> None:
    class Fails(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                raise RuntimeError("as planned")

    with pytest.raises(RuntimeError, match="as planned"):
        trainer(address, Fails(), **EVERY_STEP).train()
    assert names(address)[-1] == "checkpoint-2"
    assert not [one for one in threading.enumerate() if one.name == "uploads"]


@pytest.mark.slow
def test_trainings_that_are_killed_while_uploading_resume_elsewhere() -> None:
    assert upload_kills.main(["--kills", "3", "--store", "file"]) == 0
