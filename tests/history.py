"""A test's view of Prefect: flow runs with their states, artifacts and events, as its pages get them."""

from collections.abc import Callable
from typing import Any

from prefect.client.base import PrefectHttpxSyncClient

from tests.cluster import wait_for

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
Run = dict[str, Any]


class History:
    def __init__(self, url: str) -> None:
        # This is Prefect's own list: a server on SQLite may answer a write with 503 "database is locked", for a retry.
        self._client = PrefectHttpxSyncClient(base_url=url, timeout=60)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._client.post(path, json=body).raise_for_status().json()

    def get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()

    def runs(self, job: str) -> list[Run]:
        """Return the flow runs of a job, oldest first, by the tag that people filter by."""
        body = {"flow_runs": {"tags": {"all_": [f"job:{job}"]}}, "sort": "START_TIME_ASC"}
        runs: list[Run] = self.post("/flow_runs/filter", body)
        return runs

    def run(self, run_id: str) -> Run:
        run: Run = self.get(f"/flow_runs/{run_id}")
        return run

    def states(self, run_id: str) -> list[dict[str, Any]]:
        states: list[dict[str, Any]] = self._client.get("/flow_run_states/", params={"flow_run_id": run_id}).json()
        return states

    def tasks(self, run_id: str) -> list[Run]:
        tasks: list[Run] = self.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return tasks

    def artifacts(self, run_id: str) -> dict[str, dict[str, Any]]:
        found = self.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
        return {artifact["key"]: artifact for artifact in found}

    def logs(self, run_id: str) -> list[str]:
        body = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        return [line["message"] for line in self.post("/logs/filter", body)]

    def events(self, job: str) -> list[dict[str, Any]]:
        """Return the events of a job, oldest first."""
        body = {"filter": {"resource": {"id": [f"kafka-sort.job.{job}"]}, "order": "ASC"}, "limit": 50}
        events: list[dict[str, Any]] = self.post("/events/filter", body)["events"]
        return events

    def cancel(self, run_id: str) -> None:
        """Cancel a run as the button does."""
        self.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})

    def retry(self, run_id: str) -> None:
        """Retry a run as the button does."""
        self.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}})

    def renew(self, lease: str) -> None:
        """Renew a run's slot under a concurrency limit; HTTPStatusError if the server knows of none."""
        self._client.post(
            f"/v2/concurrency_limits/leases/{lease}/renew", json={"lease_duration": 300}
        ).raise_for_status()

    def make_secret(self, name: str, data: dict[str, str]) -> None:
        """Make a Secret block as its page does."""
        kind = self.get("/block_types/slug/secret")["id"]
        (schema,) = self.post("/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})
        document = {"name": name, "data": data, "block_type_id": kind, "block_schema_id": schema["id"]}
        self.post("/block_documents/", document)

    def create(self, deployment: str, parameters: dict[str, Any], **body: Any) -> str:
        """Create a flow run of a deployment, to start at once; return its id. HTTPStatusError if it is refused."""
        found = self.get(f"/deployments/name/{deployment}")
        made = self.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters, **body})
        return str(made["id"])

    def wait(self, run_id: str, condition: Callable[[Run], bool] | None = None, seconds: float = 240) -> Run:
        """Return the run once the condition holds; without one, once it has ended."""
        holds = condition or (lambda run: run["state_type"] in FINAL)
        wait_for(lambda: holds(self.run(run_id)), seconds)
        return self.run(run_id)
