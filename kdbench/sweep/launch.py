"""Calls Hydra's launchers from our own code: one job a run, or for several that take turns.

Submitit writes pickles into the sweep's folder and reads them back: they hold this package's own job function and
strings, and the folder is the user's own. That is the one exception to the rule that nothing is unpickled.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import initialize
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdbench.base.errors import UserError, nearest
from kdbench.sweep.job import close, job


@dataclass(frozen=True)
class Launcher:
    """A launcher of Hydra's.

    Attributes:
        package: what brings it, and the extra that installs that; ``module`` is what it installs. None: Hydra itself.
        jobs: the option that says how many jobs run at once; None where the launcher has none.
        here: its jobs run on this machine and share its cores and cards.
        batch: jobs of one call for each that runs at once: a launcher that starts them all keeps the others waiting.
        limit: most jobs of one call.
        serial: one job is done before the next.
        end: ends the workers that it keeps for the next call; None where it keeps none.
    """

    module: str | None = None
    package: str = ""
    extra: str = "sweep"
    jobs: str | None = None
    here: bool = True
    batch: int | None = None
    limit: int | None = None
    serial: bool = False
    end: Callable[[], None] | None = None


def _end_joblib() -> None:
    """Joblib's workers stay for minutes, and with them the processes that train."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


LAUNCHERS = {
    "basic": Launcher(serial=True, end=close),
    "joblib": Launcher("hydra_joblib_launcher", "hydra-joblib-launcher", jobs="n_jobs", end=_end_joblib),
    "submitit_local": Launcher("hydra_submitit_launcher", "hydra-submitit-launcher", batch=4),
    "submitit_slurm": Launcher(
        "hydra_submitit_launcher", "hydra-submitit-launcher", jobs="array_parallelism", here=False, limit=1000
    ),
    "ray": Launcher("hydra_ray_launcher", "hydra-ray-launcher", extra="ray", jobs="ray.init.num_cpus"),
}
_OWN = {
    "joblib": {"batch_size": "1"},
    "submitit_local": {"timeout_min": "100000"},  # a run's time limit is the sweep's business
}
SLURM_GRACE_MIN = 10
"""Minutes a Slurm job gets on top of its run's time limit, to start and to record that the limit was reached."""


class LaunchFailed(Exception):
    """The launcher gave up; its jobs may be done, running or lost."""


def require(name: str) -> Launcher:
    """A launcher that is installed.

    Raises:
        UserError: unknown, or its package is missing.
    """
    if name not in LAUNCHERS:
        raise UserError(f"--launcher {name!r} is not known{nearest(name, LAUNCHERS)}; use {', '.join(LAUNCHERS)}")
    found = LAUNCHERS[name]
    if found.module is not None and not _installed(found.module):
        raise UserError(
            f"--launcher {name} needs the package {found.package}: pip install {found.package} (kdbench's extra "
            f"{found.extra!r})"
        )
    return found


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(f"hydra_plugins.{module}") is not None
    except ModuleNotFoundError:
        return False


def options(name: str, jobs: int, timeout: float | None, given: Sequence[str]) -> list[str]:
    """The launcher's options as ``key=value``: those the sweep sets, then the user's.

    Raises:
        UserError: one of the user's is not ``key=value``, or the sweep sets it.
    """
    launcher = LAUNCHERS[name]
    own = dict(_OWN.get(name, {}))
    if launcher.jobs is not None:
        own[launcher.jobs] = str(jobs)
    if not launcher.here and timeout is not None:
        own["timeout_min"] = str(math.ceil(timeout / 60) + SLURM_GRACE_MIN)
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UserError(f"--launcher-arg {text!r}: write KEY=VALUE, an option of Hydra's launcher {name}")
        if key == launcher.jobs:
            raise UserError(f"--launcher-arg {text!r}: --jobs sets that")
        own[key] = value
    return [f"{key}={value}" for key, value in own.items()]


def check(name: str, chosen: Sequence[str]) -> None:
    """Whether a launcher takes its options.

    Raises:
        UserError: naming the first that it does not take, and the nearest it does.
    """
    with _composed(name, [], Path("sweep")) as (_, config):
        for text in chosen:
            *parents, last = text.partition("=")[0].split(".")
            node = OmegaConf.select(config.hydra.launcher, ".".join(parents)) if parents else config.hydra.launcher
            known = [*node] if OmegaConf.is_dict(node) else []
            if last not in known and OmegaConf.get_type(node) is not dict:  # a plain dict takes any key
                raise UserError(f"--launcher-arg {text!r}: {name} has no such option{nearest(last, known)}")
    with _composed(name, chosen, Path("sweep")):
        pass  # the values have the options' types


def launch(name: str, chosen: Sequence[str], folder: Path, numbers: Sequence[int]) -> None:
    """Runs jobs and waits for them. Whether they have run is for the records to tell.

    Args:
        chosen: the launcher's options.
        folder: of the sweep; it holds the jobs' orders.
        numbers: of the jobs, rising.

    Raises:
        LaunchFailed: a worker died, or the launcher could not start; the message is the launcher's.
    """
    try:
        with _composed(name, chosen, folder) as (hydra, config):
            HydraConfig.instance().set_config(config)
            context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
            launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=job, config=config)
            launcher.launch([[f"job={number}"] for number in numbers], initial_job_idx=numbers[0])
    except UserError:
        raise
    except Exception as error:
        raise LaunchFailed(f"{type(error).__name__}: {error}") from error


@contextmanager
def _composed(name: str, chosen: Sequence[str], folder: Path) -> Iterator[tuple[Hydra, DictConfig]]:
    """Hydra, and the configuration of a launcher's jobs."""
    setup_globals()
    GlobalHydra.instance().clear()
    ConfigStore.instance().store(name="sweep", node={"folder": str(folder), "job": -1})
    with initialize(version_base="1.3", config_path=None):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        overrides = [
            f"hydra/launcher={name}", "hydra/job_logging=disabled", "hydra/hydra_logging=disabled",
            "hydra.sweep.dir=${folder}", "hydra.sweep.subdir=jobs/${hydra.job.num}",
            "hydra.job.name=kdbench", "hydra.job.chdir=false", "hydra.output_subdir=null",
            *(f"++hydra.launcher.{option}" for option in chosen),
        ]  # fmt: skip
        try:
            config = hydra.config_loader.load_configuration("sweep", overrides, run_mode=RunMode.MULTIRUN)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(f"--launcher {name}: {str(error).splitlines()[0]}") from error
        yield hydra, config
