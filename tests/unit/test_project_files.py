"""What the files for building and running the project must and must not say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lock() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_lock_has_exact_versions_and_no_places(lock: list[str]) -> None:
    unlike = [line for line in lock if not re.fullmatch(r"[a-z0-9-]+==[\w.+]+( ; .+)?", line)]

    assert not unlike


def test_the_lock_has_a_django_for_each_python(lock: list[str]) -> None:
    assert [line.split(".")[0] for line in lock if line.startswith("django==")] == ["django==5", "django==6"]


def test_the_lock_has_every_dependency(lock: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for name, extra in project["optional-dependencies"].items() if name != "peers" for each in extra),
    ]
    names = {re.split(r"[^\w-]", each)[0].lower() for each in wanted}

    assert names <= {line.split("==")[0] for line in lock}


@pytest.fixture(scope="module")
def compose() -> dict[str, dict[str, dict[str, object]]]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_every_service_has_a_health_check_and_listens_on_this_machine_only(
    compose: dict[str, dict[str, dict[str, object]]],
) -> None:
    for service in compose["services"].values():
        assert "healthcheck" in service
        ports = service.get("ports", [])
        assert isinstance(ports, list)
        assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_service_waits_for_what_it_needs(compose: dict[str, dict[str, dict[str, object]]]) -> None:
    needs = compose["services"]["mail_service"]["depends_on"]

    assert needs == {name: {"condition": "service_healthy"} for name in ("rabbitmq", "postgresql", "mailpit")}
