"""Reads a ``config.yaml`` as the ``nameko`` command does, environment variables included."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import yaml

from mail_service.errors import ConfigurationError

#: PyYAML quotes in its problems what it did not understand, which may be a password that begins with * or !
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
#: a character, or a token's name as PyYAML gives it
_HARMLESS = re.compile(r"'(?:.|<[a-z ]+>)'")


def load_config_file(path: str | Path) -> dict[str, object]:
    """
    The content of the file at *path*, with ``${NAME:default}``, ``!env_var`` and ``!raw_env_var`` replaced.

    Nothing else is checked; ``load_settings`` does that.

    Raises:
        ConfigurationError: there is no such file, it cannot be read, it is no YAML, or no mapping.
    """
    text = _read(path)
    _teach_yaml_environment_variables()
    try:
        config = yaml.safe_load(text)
    except yaml.MarkedYAMLError as exc:
        raise ConfigurationError(f"{path}: {_describe(exc)}") from None
    except (yaml.YAMLError, ValueError, TypeError) as exc:
        raise ConfigurationError(f"{path}: no valid YAML ({type(exc).__name__})") from None
    except _nameko_error() as exc:
        raise ConfigurationError(f"{path}: {exc}") from None
    if not isinstance(config, dict):
        raise ConfigurationError(f"{path}: expected a mapping like AMQP_URI: ..., got {_kind(config)}")
    return config


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file; name one with --config") from None
    except OSError as exc:
        raise ConfigurationError(f"{path}: cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path}: not encoded in UTF-8 (byte {exc.start})") from None


def _teach_yaml_environment_variables() -> None:
    """Do to PyYAML what nameko's command does first. ``nameko.cli.main`` imports no eventlet (2.14.1)."""
    if "!env_var" not in yaml.SafeLoader.yaml_constructors:
        importlib.import_module("nameko.cli.main").setup_yaml_parser()


def _nameko_error() -> type[Exception]:
    error: type[Exception] = importlib.import_module("nameko.exceptions").ConfigurationError
    return error


def _describe(exc: yaml.MarkedYAMLError) -> str:
    """Where and what; never PyYAML's own text, which quotes the line with whatever secret is in it."""
    mark = exc.problem_mark or exc.context_mark
    problem = _QUOTED.sub(
        lambda quoted: quoted.group() if _HARMLESS.fullmatch(quoted.group()) else "...", exc.problem or "no valid YAML"
    )
    if mark is None:
        return problem
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _kind(config: object) -> str:
    match config:
        case None:
            return "an empty file"
        case list():
            return "a list"
        case _:
            return "a single value"
