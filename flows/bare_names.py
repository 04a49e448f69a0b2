"""A Prefect plugin: `prefect deployment run cgn-full` works as typed, without the flow's name before a slash.

Decided here: a name that has a slash goes to Prefect unchanged; one without is looked up among all deployments, and
refused when two flows have one of that name. Prefect offers no hook for this, so a method of its client is wrapped; a
test runs the command itself and so guards the wrapping against a new Prefect.
"""

from functools import wraps
from typing import TYPE_CHECKING, Any

from prefect.plugins import register_hook

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse


class BareNames:
    """The object that the entry point in pyproject.toml names."""

    @register_hook
    def setup_environment(self, *, ctx: Any) -> None:
        """Called by Prefect as it starts, before any command."""
        del ctx
        from prefect.client.orchestration._deployments.client import DeploymentAsyncClient

        if not hasattr(DeploymentAsyncClient.read_deployment_by_name, "__wrapped__"):
            DeploymentAsyncClient.read_deployment_by_name = _bare(DeploymentAsyncClient.read_deployment_by_name)  # type: ignore[method-assign]


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
        # Where there is none, Prefect's own message is the right one.
        found = same[0] if same else await original(self, f"cgn/{name}")
        return found

    return read_deployment_by_name


plugin = BareNames()
