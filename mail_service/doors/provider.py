"""What the RPC methods and the event handler are given to work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mail_service.amqp import connecting
from mail_service.amqp.rpc import Caller
from mail_service.doors.accepting import Acceptance
from mail_service.doors.operating import Operator, health
from mail_service.doors.steering import Steering
from mail_service.ledger import StoreDown
from mail_service.ledger.pauses import Pause
from mail_service.wiring import Runtime, RuntimeProvider

_NOBODY = Caller(reply_to=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """One call's view of the service."""

    runtime: Runtime
    accept: Acceptance
    operate: Operator
    steer: Steering
    #: who calls, and where the answer goes
    caller: Caller

    def health(self) -> dict[str, dict[str, Any]]:
        """How every part is."""
        return health_of(self.runtime)


def health_of(runtime: Runtime) -> dict[str, dict[str, Any]]:
    """How every part of *runtime* is."""
    return health(
        lambda: connecting.connection(runtime.config),
        runtime.database.check,
        runtime.mailers.all(),
        runtime.keeper.holds(),
        _pauses(runtime),
        limits=runtime.turnstiles.in_words(),
    )


def _pauses(runtime: Runtime) -> Sequence[Pause]:
    try:
        return runtime.pauses.all()
    except StoreDown:
        # another part says so
        return ()


class DoorProvider(RuntimeProvider):
    """Injects Doors."""

    def get_dependency(self, worker_ctx: Any) -> Any:
        """Doors for one call."""
        runtime = super().get_dependency(worker_ctx)
        accept = Acceptance(
            runtime.settings,
            runtime.ledger,
            runtime.queue,
            runtime.announcer,
            storeroom=runtime.storeroom,
            tracing=runtime.tracing,
        )
        operate = Operator(runtime.ledger, runtime.error_log, runtime.queue, accept, runtime.holdings, runtime.releaser)
        steer = Steering(
            runtime.settings,
            runtime.database,
            runtime.pause_list,
            runtime.pauses,
            runtime.holds_of,
            runtime.releaser,
            runtime.announcer,
        )
        caller = getattr(worker_ctx, "caller", _NOBODY)
        return Doors(runtime=runtime, accept=accept, operate=operate, steer=steer, caller=caller)
