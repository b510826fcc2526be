"""Makes arguments from a command line and from files, with jsonargparse."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Final, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import torch

from trainer_torch.arguments.argument_values import default_of
from trainer_torch.arguments.dropped_arguments import DROPPED, refuse_unknown
from trainer_torch.arguments.kept_arguments import WITHOUT_EFFECT, KeptArguments
from trainer_torch.arguments.unsupported_arguments import UnsupportedArguments, instead_of

try:
    import docstring_parser
    import jsonargparse
    import yaml
    from jsonargparse.typing import register_type
except ImportError as error:
    raise ImportError(
        f"from_args needs a package that is missing: {error.name}. Install the extra: "
        "pip install 'trainer-torch[cli]'."
    ) from error

A = TypeVar("A")

_USAGE: Final = "%(prog)s [--config FILE] [--NAME VALUE ...]"

_TRUTH: Final = {"1": "true", "0": "false"}

register_type(
    torch.dtype, lambda dtype: str(dtype).removeprefix("torch."), lambda text: _dtype(text)
)
register_type(torch.device, str, torch.device)


_TRUTH_TAG: Final = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """Reads `no` as text, as YAML 1.2 does: `eval_strategy: no` is not false."""

    yaml_implicit_resolvers: ClassVar = {
        first: [pair for pair in pairs if pair[0] != _TRUTH_TAG]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    _TRUTH_TAG, re.compile("^(true|True|TRUE|false|False|FALSE)$"), "tTfF"
)


def parse(cls: type[A], args: Sequence[str] | None) -> A:
    """Return the arguments that a command line and the files that it names describe.

    Args:
        cls: A dataclass of arguments.
        args: The command line; by default that of this program.

    Raises:
        SystemExit: Something is wrong; the error is on standard error. Or help was asked for.
    """
    hints = get_type_hints(cls)
    parser, untyped = _parser(cls, hints)
    of_files = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage=_USAGE)
    of_files.add_argument("--config", action="append", default=[])
    tokens = list(_tokens(sys.argv[1:] if args is None else args, hints))
    files, tokens = of_files.parse_known_args(tokens)
    values, where = jsonargparse.Namespace(), "the command line"
    try:
        for where in files.config:
            content = {**_read(Path(where).expanduser(), hints)}
            _check_names(cls, content, untyped)
            values.update(parser.parse_object(content, defaults=False))
        where = "the command line"
        names = [token[2:].partition("=")[0] for token in tokens if token.startswith("--")]
        _check_names(cls, (name.partition(".")[0] for name in names if name != "help"), untyped)
        values = parser.parse_args(tokens, namespace=values, defaults=False)
        where = "the arguments"
        return cls(**vars(parser.instantiate(values)))
    except (OSError, TypeError, ValueError, yaml.YAMLError, argparse.ArgumentError) as error:
        _fail(parser, where, error)


def _parser(
    cls: type, hints: Mapping[str, Any]
) -> tuple[jsonargparse.ArgumentParser, dict[str, Any]]:
    """Return a parser of the fields of `cls`, and the types of those that text cannot express."""
    parser = jsonargparse.ArgumentParser(usage=_USAGE, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="A YAML or JSON file.")
    texts, untyped = help_texts(cls), {}
    last = {item.name for item in (*fields(KeptArguments), *fields(UnsupportedArguments))}
    for item in sorted(fields(cls), key=lambda item: item.name in last):
        if not item.init:
            continue
        hint = hints[item.name]
        options: dict[str, Any] = {"type": hint}
        if (default := default_of(item)) is not MISSING:
            options["default"] = default
        if _is_flag(hint):
            options |= {"nargs": "?", "const": True}
        try:
            parser.add_argument(
                f"--{item.name}",
                help=texts.get(item.name) or " ",
                **options,
            )
        except ValueError:
            untyped[item.name] = hint
    return parser, untyped


def help_texts(cls: type) -> dict[str, str]:
    """Return a sentence on each argument, from the docstring of its class or from our tables."""
    texts = {
        item.name: f"Not supported. {instead_of(item.name)}"
        for item in fields(UnsupportedArguments)
    }
    texts |= WITHOUT_EFFECT
    for one in reversed(cls.__mro__):
        for described in docstring_parser.parse(one.__doc__ or "").params:
            text = " ".join((described.description or "").split())
            texts[described.arg_name] = re.split(r"(?<=\.)\s(?=[A-Z`])", text)[0]
    return texts


def _tokens(args: Sequence[str], hints: Mapping[str, Any]) -> Iterator[str]:
    """Yield a command line with underscores in names, and with the values in YAML."""
    args = list(args)
    while args:
        arg = args.pop(0)
        if not arg.startswith("--"):
            yield arg
            continue
        name, equals, value = arg[2:].partition("=")
        name = name.replace("-", "_")
        hint, positive = hints.get(name), name.removeprefix("no_")
        values = [value] if equals else []
        while args and not equals and not args[0].startswith("--"):
            values.append(args.pop(0))
        if name not in hints and not values and _is_flag(hints.get(positive)):
            yield f"--{positive}=false"
        elif _admits_list(hint) and (len(values) > 1 or not _admits(hint, str)):
            is_yaml = len(values) == 1 and values[0].startswith(("[", "null", "None"))
            yield f"--{name}={_in_yaml(values[0], hint) if is_yaml else json.dumps(values)}"
        elif values:
            yield from (f"--{name}={_in_yaml(values[0], hint)}", *values[1:])
        else:
            yield f"--{name}"


def _admits(hint: Any, kind: type) -> bool:
    return hint is kind or kind in get_args(hint)


def _admits_list(hint: Any) -> bool:
    return any(get_origin(one) is list or one is list for one in (hint, *get_args(hint)))


def _in_yaml(value: Any, hint: Any) -> Any:
    """Return `value`, or YAML's word if it is Python's `None`, or a truth value as a number."""
    if value == "None" and _admits(hint, NoneType):
        return "null"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return next((one.name for one in hint if str(one.value) == str(value)), value)
    return _TRUTH.get(value, value) if isinstance(value, str) and _is_flag(hint) else value


def _is_flag(hint: Any) -> bool:
    return hint is bool or set(get_args(hint)) == {bool, NoneType}


def _read(path: Path, hints: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a file says, with underscores in names.

    Raises:
        ValueError: It is not a mapping of names.
    """
    text = path.read_text(encoding="utf-8")
    content = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)
    if not isinstance(content, dict):
        raise ValueError(f"A file of arguments maps names to values, but this is {content!r}.")
    named = {str(name).replace("-", "_"): value for name, value in content.items()}
    return {name: _in_yaml(value, hints.get(name)) for name, value in named.items()}


def _check_names(cls: type, named: Iterable[str], untyped: Mapping[str, Any]) -> None:
    names = list(named)
    refuse_unknown(cls, names, DROPPED)
    for name in names:
        if name in untyped:
            raise TypeError(f"{name} cannot be written as text: its type is {untyped[name]}.")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype of torch.")
    return dtype


def _fail(parser: jsonargparse.ArgumentParser, where: str, error: Exception) -> NoReturn:
    parser.exit(2, f"{parser.prog}: error in {where}: {error}\n")
    raise SystemExit(2)  # never reached
