"""A Prefect plugin: additions to `prefect deployment run` and `prefect deploy`.

Deployments run by their bare names, and a run that waits has its deployment's name instead of two random words; the
flow gives it a longer one once it begins. Schedules end when they are removed from the file, and dead runs are marked.

In `prefect deployment run NAME` a name that has a slash goes to Prefect unchanged; one without is looked up among all
deployments, and refused when two flows have one of that name. `prefect deploy` replaces a deployment's schedules by
those of the file, but leaves the old ones active when the file has none left: here they are removed, and named. A
worker marks a run as crashed whose process died; where the worker died too, nothing would, and the run would hold its
deployment's place forever. So deploying also creates the automation that Prefect documents for it: a flow that sends no
heartbeat (pyproject.toml says how often) is marked as crashed, which frees its place. Prefect offers no hook for any of
these, so methods of its own are wrapped; tests run the commands themselves and so guard the wrapping against a new
Prefect.
"""

from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any

from prefect.plugins import register_hook

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.events.schemas.automations import AutomationCore

WATCH = "cgn: a run that sends no heartbeat has crashed"
SILENT_SECONDS = 120
LAST = ("Completed", "Failed", "Cancelled", "Crashed")


class BareNames:
    """The object that the entry point in pyproject.toml names."""

    @register_hook
    def setup_environment(self, *, ctx: Any) -> None:
        """Called by Prefect as it starts, before any command."""
        del ctx
        from prefect.client.orchestration._deployments.client import DeploymentAsyncClient
        from prefect.deployments.runner import RunnerDeployment

        if not hasattr(DeploymentAsyncClient.read_deployment_by_name, "__wrapped__"):
            DeploymentAsyncClient.read_deployment_by_name = _bare(DeploymentAsyncClient.read_deployment_by_name)  # type: ignore[method-assign]
            create = _named(DeploymentAsyncClient.create_flow_run_from_deployment)
            DeploymentAsyncClient.create_flow_run_from_deployment = create  # type: ignore[method-assign]
        if not hasattr(RunnerDeployment._update, "__wrapped__"):
            RunnerDeployment._update = _with_watch(_without_old_schedules(RunnerDeployment._update))  # type: ignore[method-assign]
            RunnerDeployment._create = _with_watch(RunnerDeployment._create)  # type: ignore[method-assign]


def _bare(original: Any) -> Any:
    @wraps(original)
    async def read_deployment_by_name(self: Any, name: str) -> "DeploymentResponse":
        found: DeploymentResponse
        if "/" in name:
            found = await original(self, name)
            return found
        from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

        same = await self.read_deployments(deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[name])))
        if len(same) > 1:
            full = [f"{(await self.read_flow(deployment.flow_id)).name}/{name}" for deployment in same]
            raise ValueError(f"several flows have a deployment {name!r}; say which: {', '.join(full)}")
        # Where no deployment has the name, Prefect's own message is the right one.
        found = same[0] if same else await original(self, f"cgn/{name}")
        return found

    return read_deployment_by_name


def _named(original: Any) -> Any:
    @wraps(original)
    async def create_flow_run_from_deployment(self: Any, deployment_id: Any, **given: Any) -> Any:
        name = given.pop("name", None) or (await self.read_deployment(deployment_id)).name
        return await original(self, deployment_id, name=name, **given)

    return create_flow_run_from_deployment


def _without_old_schedules(original: Any) -> Any:
    @wraps(original)
    async def update(self: Any, deployment_id: Any, client: Any, *rest: Any) -> Any:
        found = await original(self, deployment_id, client, *rest)
        if not self.schedules:
            for old in await client.read_deployment_schedules(deployment_id):
                await client.delete_deployment_schedule(deployment_id, old.id)
                timing = old.schedule.model_dump(mode="json", exclude_none=True, exclude={"anchor_date"})
                said = ", ".join(f"{name} {value}" for name, value in timing.items())
                print(f"{self.name}: the file has no schedule, so the old one is removed: {said}")
        return found

    return update


def _with_watch(original: Any) -> Any:
    @wraps(original)
    async def apply(self: Any, *rest: Any, **named: Any) -> Any:
        from prefect.client.orchestration import get_client

        found = await original(self, *rest, **named)
        async with get_client() as client:
            if not await client.read_automations_by_name(WATCH):
                await client.create_automation(_watch())
                print(f"created the automation {WATCH!r}")
        return found

    return apply


def _watch() -> "AutomationCore":
    """A run of the flow `cgn` has crashed if neither another heartbeat nor its end follows a heartbeat in time."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    heartbeat = "prefect.flow-run.heartbeat"
    trigger = EventTrigger(
        posture=Posture.Proactive,
        match_related=ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": "cgn"}),
        for_each={"prefect.resource.id"},
        after={heartbeat},
        expect={heartbeat, *(f"prefect.flow-run.{state}" for state in LAST)},
        within=timedelta(seconds=SILENT_SECONDS),
    )
    message = f"no heartbeat for {SILENT_SECONDS} seconds: its process, or its machine, is gone"
    crash = ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message, force=False)
    return AutomationCore(name=WATCH, trigger=trigger, actions=[crash])


plugin = BareNames()
