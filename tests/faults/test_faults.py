"""The quicker half of the faults, a moment of each; `make faults` lets all of them happen at length."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from mail_service.local.node import Node
from tests.support.postgresql import Postgresql

from .faults import FAULTS, suffer
from .ground import Ground, opened
from .stores import small_disk

#: of the traffic; the moments of the faults are chance all the same
SEED = int(os.environ.get("SEED", "1"))


@pytest.fixture(scope="module")
def many(rabbitmq_3: Node, postgresql: Postgresql, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    rabbitmq_3.add_vhosts("faults-many")
    folder = tmp_path_factory.mktemp("many")
    with opened(rabbitmq_3, "faults-many", folder, seed=SEED, postgresql=postgresql, processes=2) as ground:
        yield ground


@pytest.fixture(scope="module")
def one(rabbitmq_3: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    rabbitmq_3.add_vhosts("faults-one")
    folder = tmp_path_factory.mktemp("one")
    with (
        small_disk(folder) as disk,
        opened(rabbitmq_3, "faults-one", folder, seed=SEED, database_folder=disk) as ground,
    ):
        yield ground


@pytest.mark.slow
@pytest.mark.parametrize("where", ["one", "many"])
def test_no_confirmed_mail_is_lost_and_none_needlessly_doubled(where: str, request: pytest.FixtureRequest) -> None:
    ground: Ground = request.getfixturevalue(where)
    faults = {fault: fault.short_s for fault in FAULTS if fault.where == where and fault.short_s is not None}
    if not ground.has_small_disk:
        # that takes root and mount
        faults = {fault: seconds for fault, seconds in faults.items() if not fault.needs_small_disk}

    tally = suffer(ground, faults, settle_s=60)

    assert tally.is_sound, (tally, ground.service.log[-3000:])
    assert tally.delivered
