"""Trackers on `callback_core.tracking` that are wrong in one way each: settings, ends, names."""

import logging
import os
from contextlib import contextmanager

from second_specimens import faulty
from second_store import FolderTracker, SqliteTracker, WebTracker, server_for
from second_tracking_1 import InFolders, InSqlite, InWeb

from callback_contract import Setting
from callback_core.tracking import TrackerCallback


class RoundingTracker(FolderTracker):
    name = "zoo_rounding"

    def shown(self, value):
        return f"{value:.4g}"


@faulty("keeps four digits of a value")
class KeepsFourDigits(InFolders):
    __test__ = False

    def make(self, output_dir):
        return TrackerCallback(RoundingTracker(output_dir / "runs"))


class ProjectTracker(SqliteTracker):
    """Keeps runs by project; `ZOO_PROJECT` names it where the argument does not."""

    name = "zoo_project"

    def __init__(self, path, project=None):
        super().__init__(path)
        self.project = os.environ.get("ZOO_PROJECT") or project or "default"

    def settings(self):
        return {"path": self.path, "project": self.project}

    def begin_run(self, opening):
        run = super().begin_run(opening)
        return run if opening.run_id else f"{self.project}/{run}"


@faulty("an environment variable has precedence over the argument")
class VariableBeatsArgument(InSqlite):
    __test__ = False
    capabilities = InSqlite.capabilities | {"settings"}
    settings = (
        Setting(
            "project",
            "ZOO_PROJECT",
            "default",
            examples=[("mine", "mine"), ("a b", "a b")],
            given=[("yours", "yours")],
        ),
    )

    def make(self, output_dir):
        return self.make_with(output_dir)

    def make_with(self, output_dir, **arguments):
        return TrackerCallback(ProjectTracker(output_dir / "runs.db", **arguments))


class Session:
    """The run that a user has opened, if one has."""

    current = None


class AdoptingTracker(SqliteTracker):
    """Logs into the run of the user's session, if there is one."""

    name = "zoo_adopting"

    def adopt(self):
        return Session.current

    def close(self, status):
        self.set_status(status or "finished")
        self.database.close()


@faulty("ends the run that the user has opened", source="ludwig-ai/ludwig#2201")
class ClosesTheUsersRun(InSqlite):
    __test__ = False
    capabilities = InSqlite.capabilities | {"adopts"}

    def make(self, output_dir):
        return TrackerCallback(AdoptingTracker(output_dir / "runs.db"))

    @contextmanager
    def users_run(self, output_dir):
        users = AdoptingTracker(output_dir / "runs.db")
        Session.current = users.open(_Opening)
        try:
            yield Session.current
        finally:
            users.close("finished")
            Session.current = None


class _Opening:
    run_id = rewind_to = None


class ConsoleTracker(FolderTracker):
    """Keeps also what is logged to the console in a training."""

    name = "zoo_console"

    def __init__(self, root):
        super().__init__(root)
        self.said = []

    def begin(self):
        self.said = []
        logging.getLogger().addHandler(logging.StreamHandler(self))

    def write(self, text):
        self.said.append(text)

    def flush(self):
        pass

    def close(self, status):
        super().close(status)
        (self.folder / "console.txt").write_text("".join(self.said))


@faulty("the handler that it adds to the root logger stays there")
class LeavesLogHandler(InFolders):
    __test__ = False

    def make(self, output_dir):
        return TrackerCallback(ConsoleTracker(output_dir / "runs"))


class ShortNameTracker(SqliteTracker):
    name = "zoo_short_name"

    def log_metrics(self, points):
        super().log_metrics([p._replace(name=p.name.rpartition("/")[2]) for p in points])


@faulty("calls the loss of training and that of evaluation the same, so that both are one curve")
class OneNameForTwo(InSqlite):
    __test__ = False

    def make(self, output_dir):
        return TrackerCallback(ShortNameTracker(output_dir / "runs.db"))

    def stored_name(self, name):
        return name.removeprefix("eval_").removeprefix("test_")


class AlertingCallback(TrackerCallback):
    """Sends a training to the server, and keeps an alert where it fails."""

    def __init__(self, url, **options):
        super().__init__(WebTracker(url), **options)
        self.alerts = []

    def on_exception(self, args, state, control, exception=None, **kwargs):
        self.alerts.append(f"step {state.global_step}: {exception!r}")


@faulty(
    "overrides on_exception without what it does, so that a failed training is kept as finished"
)
class ForgetsSuper(InWeb):
    __test__ = False

    def make(self, output_dir):
        return AlertingCallback(server_for(output_dir).url)

    def make_unreachable(self, output_dir):
        url = server_for(output_dir, mode="broken").url
        return AlertingCallback(url, flush_limit=self.flush_limit)
