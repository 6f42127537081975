"""What every script has in common: its command line and its folder of results.

A script is a frozen dataclass of knobs, a few named values of it, and a function
`main(config, folder)`:

    if __name__ == "__main__":
        cli.run(CONFIGS, main, __doc__)

The knobs become options (their help is the text under each field), a named
configuration comes first: `python -m experiments.fragility imagenet --steps 100`.
"""

import contextlib
import dataclasses
import difflib
import inspect
import logging
import os
import pathlib
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import jax

import protojax
from experiments import cluster
from protojax.scale import storage

Config = TypeVar("Config")

_OUT = "where results go: a folder, or an address in a bucket (gs://, s3://)"
_DISTRIBUTED = "be one of several processes, one on each host, that share the work"
_OURS = [pathlib.Path(path).parent for path in (protojax.__file__, __file__)]


def run(
    configs: Mapping[str, Config],
    main: Callable[[Config, pathlib.Path], None],
    description: str | None = None,
    *,
    plan: Callable[[Config], str] | None = None,
    args: Sequence[str] | None = None,
) -> None:
    """Parse the command line, claim the folder of results, and run the script.

    The folder is `--out` (else `runs/SCRIPT-CONFIG`). Its `config.json` says what is
    run; a folder of another configuration is refused, the same one is resumed. With
    `--distributed` the process is one of a cluster (docs/scale.md); what it prints is
    printed by the first of them alone.

    Args:
      configs: named configurations, values of one frozen dataclass; the first is the
        one that is meant if none is named.
      main: the script.
      description: for `--help`; the script's docstring.
      plan: says what a run would cost; offered as `--plan`, which makes no
        folder of results.
      args: the command line, `sys.argv` if not given.

    Raises:
      SystemExit: a bad command line, whatever the script refuses by a `ValueError` of
        ours, a file that is missing or cannot be written, a folder of another
        configuration, Ctrl-C.
      ModuleNotFoundError: tyro is not installed; says how to install it.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    script = pathlib.Path(inspect.getfile(main)).stem
    name = _name(configs, arguments, script)
    command = shlex.join(["python", "-m", f"experiments.{script}", *arguments])
    rest = arguments[1:] if arguments[:1] == [name] else arguments
    parsed = _parse(configs, name, rest, script, description, plan is not None)
    if parsed.distributed:
        cluster.join()
    _prepare()
    if plan is not None and parsed.plan:
        with one_line(script):
            print(plan(parsed.config))
        return
    folder = storage.place(parsed.out)
    notes = {"script": script, "name": name, "command": command, **storage.versions()}
    try:
        storage.claim(folder, "config", dataclasses.asdict(parsed.config), **notes)
    except (ValueError, OSError) as error:
        raise SystemExit(f"{script}: {error} (`--out`)") from error
    try:
        with cluster.leaving_last(folder), one_line(script):
            main(parsed.config, folder)
    except KeyboardInterrupt as stop:
        print(f"\n{stop or 'interrupted'}", file=sys.stderr)
        print(f"to go on: {command}", file=sys.stderr)
        raise SystemExit(130) from None  # what a shell gives for Ctrl-C
    report = folder / "report.html"
    if jax.process_index() == 0:
        page = report if storage.is_bucket(report) else report.resolve()
        print(f"report: {page}" if report.exists() else f"results: {folder}")


@contextlib.contextmanager
def one_line(script: str) -> Iterator[None]:
    """What protojax or an experiment refuses is said without a traceback.

    An error that came from elsewhere, such as the user's network, keeps its own.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        place = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not any(place.is_relative_to(home) for home in _OURS):
            raise
        raise SystemExit(f"{script}: {error}") from error


def _name(configs: Mapping[str, Any], arguments: Sequence[str], script: str) -> str:
    """The configuration that is named first, else the first there is."""
    if not arguments or arguments[0].startswith("-"):
        return next(iter(configs))
    if arguments[0] in configs:
        return arguments[0]
    near = difflib.get_close_matches(arguments[0], configs, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise SystemExit(
        f"{script}: no configuration {arguments[0]!r}: choose from "
        f"{', '.join(configs)}.{meant}"
    )


def _parse(
    configs: Mapping[str, Any],
    name: str,
    arguments: Sequence[str],
    script: str,
    description: str | None,
    plannable: bool,
) -> Any:
    tyro, config = parser(), configs[name]
    folder = f"runs/{script}-{name}"
    plan = "print programs, memory and expected time (tried on one image), then stop"
    fields: list[Any] = [
        ("config", Annotated[type(config), tyro.conf.arg(name="")]),
        ("out", Annotated[str, tyro.conf.arg(help=_OUT)], folder),
        ("distributed", _flag(_DISTRIBUTED), False),
    ]
    if plannable:
        fields.append(("plan", _flag(plan), False))
    options = dataclasses.make_dataclass("Options", fields, frozen=True)
    named = f"Configurations (the first argument): {', '.join(configs)}."
    return tyro.cli(
        options,
        prog=f"python -m experiments.{script} {name}",
        description="\n\n".join(filter(None, [description, named])),
        args=list(arguments),
        default=options(config=config),
    )


def parser() -> Any:
    """Tyro, which makes options of a dataclass; if it is not there, how to get it."""
    try:
        import tyro
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "experiments need tyro: pip install 'protojax[experiments]'"
        ) from error
    return tyro


def _flag(text: str) -> Any:
    tyro = parser()
    # There is no --no-plan.
    return Annotated[bool, tyro.conf.arg(help=text), tyro.conf.FlagCreatePairsOff]


def _prepare() -> None:
    """Logging to the terminal, and compiled programs kept for the next run."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(module)s: %(message)s",
        datefmt="%H:%M:%S",
        force=True,  # a package may have set up its own by being imported
    )
    for name in ("protojax", "experiments", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO)
    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(home, "protojax", "jax")
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
