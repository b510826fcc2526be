"""Does what callbacks and signals have asked for: logs, evaluations, checkpoints, the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from callback_core import Request, deciding_metric, update_best_metric
from trainer_torch.arguments.argument_values import BEST
from trainer_torch.checkpoints.checkpoint_saving import finish_save, note_best
from trainer_torch.loop.hooks import LoopHooks
from trainer_torch.loop.non_finite import respond
from trainer_torch.overrides import call
from trainer_torch.run.boundary import note_boundary
from trainer_torch.run.training_run import TrainingRun


def log_evaluate_save(run: TrainingRun, hooks: LoopHooks) -> None:
    """Do what the control asks for, in this order, because each may ask for the next.

    All ranks agree on the control first, and again whenever callbacks may have changed it.
    """
    step = run.state.global_step
    run.signals.warn_of_workers()
    agree(run)
    if run.control.requests or run.signals.due:  # what comes now waits for the device anyway
        respond(run)
    if run.control.should_log and (logs := take_unlogged(run)):
        hooks.log(logs)
        agree(run)
    if run.control.should_evaluate:
        metric = deciding_metric(run.args, _evaluate(run, hooks))
        if metric is not None:
            if update_best_metric(run.args, run.state, metric) and run.args.save_strategy == BEST:
                run.control.should_save = True
            if run.last_save_step == step:
                note_best(run)
            if isinstance(run.lr_scheduler, ReduceLROnPlateau):
                run.lr_scheduler.step(metric)
        agree(run)
    if run.control.should_save:
        with run.usage.paused():
            hooks.save_checkpoint()
        agree(run)
    end_if_due(run, hooks)
    if step > 0:
        note_boundary(run, is_complete=True)


def agree(run: TrainingRun) -> None:
    """Let all ranks agree on what is due, and finish a save once all of them have written it."""
    is_writing = run.world.agree(run.control, run.signals, run.saves.is_writing)
    if run.saves.current is not None and not is_writing:
        with run.usage.paused():
            finish_save(run)


def _evaluate(run: TrainingRun, hooks: LoopHooks) -> Mapping[str, float]:
    """Evaluate, and return the metrics. The evaluation is then no longer due.

    An overridden `evaluate` may not fire `on_evaluate`, which resets the flag.
    """
    asked = [request for request in run.control.requests if request.flag == "should_evaluate"]
    with run.usage.paused():
        metrics: Mapping[str, float] = call(hooks.evaluate, ignore_keys=run.ignore_keys)
    if asked and asked[0] in run.control.requests:
        run.control.reset({"should_evaluate": False})
    return metrics


def end_if_signalled(run: TrainingRun, hooks: LoopHooks) -> None:
    """End the training if any rank has received a signal, as `end_if_due` does."""
    agree(run)
    end_if_due(run, hooks)


def end_if_due(run: TrainingRun, hooks: LoopHooks) -> None:
    """End the training by the signal that is due, after a checkpoint if the arguments ask for one.

    A step that is saved already is not saved again. Neither is the step at which the training was
    resumed.

    Raises:
        KeyboardInterrupt: The signal is SIGINT.
        SystemExit: It is another signal.
    """
    if not run.signals.due:
        return
    step = run.state.global_step
    stop = Request("should_training_stop", "a signal", step, run.signals.reason)
    run.control.requests = (*run.control.requests, stop)
    run.signals.is_ending = True
    finish_save(run)
    if run.args.enable_jit_checkpoint and step not in (run.saved_step, run.resumed_step):
        hooks.save_checkpoint()
        finish_save(run)
    run.signals.raise_due()


def take_unlogged(run: TrainingRun) -> dict[str, Any]:
    """Return what to log of the steps since the last log; nothing if there are none."""
    step = run.state.global_step
    if step <= run.position.logged_step:
        return {}
    logs = {"loss": run.position.take_loss(step), **run.step_logs}  # has waited for the device
    run.usage.publish(run.state)
    if measuring := run.usage.measures and run.loop_callbacks:
        ranks = run.usage.take_interval()
        for callback in measuring:
            logs |= callback.interval_logs(ranks)
    return logs


def leaves_epoch(run: TrainingRun) -> bool:
    """Return whether a callback has asked for the end of the epoch or of the training."""
    return run.control.should_epoch_stop or run.control.should_training_stop
