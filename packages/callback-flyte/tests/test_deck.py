"""The log of a training as a deck of its task."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
from attempts import Attempt, Deck, attempt, decks
from flytekit import Deck as FlyteDeck
from flytekit import current_context

from callback_flyte import FlyteCallback
from callback_flyte.deck import html_of
from trainer_torch.testing import At, small_trainer


def shown(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def test_the_table_has_every_value_that_was_logged_at_its_step(
    tmp_path: Path, running: Attempt
) -> None:
    trainer = small_trainer(tmp_path / "run", FlyteCallback())
    trainer.train()
    deck = Deck(decks()["Log History"])
    *history, totals = trainer.state.log_history
    expected: dict[str, dict[str, str]] = {}
    for entry in history:
        cells = {name: shown(value) for name, value in entry.items()}
        expected.setdefault(cells["step"], {}).update(cells)
    assert deck.table() == list(expected.values())
    assert list(deck.rows[0][:2]) == ["step", "epoch"]
    text = " ".join("".join(deck.texts).split())
    for name in ("train_runtime", "train_loss"):
        assert f"{name} {shown(totals[name])}" in text


def test_the_curves_are_those_of_the_losses(tmp_path: Path, running: Attempt) -> None:
    trainer = small_trainer(tmp_path / "run", FlyteCallback())
    trainer.train()
    deck = Deck(decks()["Log History"])
    assert [len(line) for line in deck.lines] == [12, 3]
    assert {"loss", "eval_loss"} <= set(deck.texts)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    heights = [float(point.split(",")[1]) for point in deck.lines[0]]
    assert sorted(range(12), key=lambda i: losses[i]) == sorted(
        range(12), key=lambda i: -heights[i]
    )


def test_logs_after_the_training_are_in_the_deck(tmp_path: Path, running: Attempt) -> None:
    trainer = small_trainer(tmp_path / "run", FlyteCallback())
    trainer.train()
    loss = trainer.evaluate(metric_key_prefix="test")["test_loss"]
    assert Deck(decks()["Log History"]).table()[-1]["test_loss"] == shown(loss)


def test_a_training_that_fails_has_a_deck(tmp_path: Path, running: Attempt) -> None:
    def fail() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        small_trainer(tmp_path / "run", FlyteCallback(), At(3, fail)).train()
    assert [row["step"] for row in Deck(decks()["Log History"]).table()] == ["1", "2"]


def test_a_second_training_gets_its_own_deck(tmp_path: Path, running: Attempt) -> None:
    FlyteDeck("mine", "<p>mine</p>")
    callback = FlyteCallback()
    small_trainer(tmp_path / "1", callback).train()
    small_trainer(tmp_path / "2", callback, max_steps=5).train()
    assert list(decks()) == ["mine", "Log History", "Log History 2"]
    assert len(Deck(decks()["Log History"]).table()) == 12
    assert len(Deck(decks()["Log History 2"]).table()) == 5


def test_without_decks_a_warning_names_the_argument_of_the_task(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with attempt(tmp_path / "flyte", 1, decks=False):
        small_trainer(tmp_path / "run", FlyteCallback()).train()
        assert not decks()
    assert "@task(enable_deck=True)" in caplog.text


def test_without_save_log_history_there_is_no_deck(
    tmp_path: Path, running: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    small_trainer(tmp_path / "run", FlyteCallback(save_log_history=False)).train()
    assert not decks()
    assert not current_context().decks


def test_names_and_values_are_escaped() -> None:
    bad = '</td><script>alert("1")</script>&amp;'
    deck = Deck(html_of([{"step": 1, f"{bad}loss": 0.5, "note": bad, "ß 損失": "größer <b>"}]))
    assert "script" not in deck.tags
    assert "b" not in deck.tags
    assert deck.table() == [{"step": "1", f"{bad}loss": "0.5", "note": bad, "ß 損失": "größer <b>"}]
    assert any(bad[:20] in text for text in deck.texts)


def test_non_finite_values_are_shown_and_leave_a_gap_in_the_curve() -> None:
    losses = [3.0, math.nan, 2.0, 1.5, math.inf, 1.0]
    deck = Deck(html_of([{"step": i, "loss": loss} for i, loss in enumerate(losses)]))
    assert [row["loss"] for row in deck.table()] == ["3", "nan", "2", "1.5", "inf", "1"]
    assert [len(line) for line in deck.lines] == [1, 2, 1]


@pytest.mark.parametrize(
    "losses",
    [[], [0.5], [0.5, 0.5], [0, 0], [math.nan], [-1e300, 1e300], [1e-320, 2e-320], [10**400]],
)
def test_any_losses_have_a_deck(losses: list[float]) -> None:
    html = html_of([{"step": step, "loss": loss} for step, loss in enumerate(losses)])
    assert len(Deck(html).rows) == (len(losses) + 1 if losses else 0)


def test_recognized_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBACKS_REDACT", "patient")
    html = html_of([{"step": 1, "hub_token": "hf_secret", "patient": 17, "url": "s3://a:b@c"}])
    for secret in ("hf_secret", "17", "a:b"):
        assert secret not in html


def test_a_long_log_has_a_small_deck_with_its_peaks_and_last_rows() -> None:
    history = [{"step": step, "loss": 100.0 if step == 77_777 else 1.0} for step in range(100_000)]
    html = html_of(history)
    deck = Deck(html)
    assert len(html) < 200_000
    assert len(deck.table()) == 1000
    assert deck.table()[-1]["step"] == "99999"
    assert "The last 1,000 of 100,000 rows." in deck.texts
    [line] = deck.lines
    assert len(line) <= 800
    assert len({point.split(",")[1] for point in line}) == 2


def test_a_copy_stores_nothing(
    tmp_path: Path, running: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    copied = pickle.loads(pickle.dumps(FlyteCallback()))
    small_trainer(tmp_path / "run", copied, save_strategy="epoch").train()
    assert decks() == {}
    assert any("FlyteCallback" in record.getMessage() for record in caplog.records)
