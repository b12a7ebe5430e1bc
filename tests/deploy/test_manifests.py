"""Compose and Kubernetes files of `deploy/`: that they parse, and agree with the app, its settings and one another."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from reason.core.settings import ServeSettings, Settings
from reason.core.store.location import redacted_location
from reason.sidecar.app import create_app
from reason.sidecar.metrics import Metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


def manifest(name: str) -> dict[str, Any]:
    found = yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def settings_of(text: str) -> Settings:
    """The settings that a file of this text gives; refuses what is no setting."""
    return Settings(**tomllib.loads(text))


@pytest.fixture
def paths(tmp_path: Path) -> set[str]:
    return set(create_app(Settings(store=tmp_path / "runs.sqlite3")).openapi()["paths"])


MARGIN_S = 15
"""Above the time of a drain: what is saved then, and the end of the process."""


def drain_s(settings: Settings) -> float:
    """The longest time from SIGTERM until the runs of a server have ended."""
    return settings.serve.drain_delay_s + settings.serve.drain_timeout_s


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)([sm])", text).groups()
    return float(number) * {"s": 1, "m": 60}[unit]


# -- compose


@pytest.fixture
def services() -> dict[str, Any]:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    assert {v for s in found["services"].values() for v in named_volumes(s)} == set(found["volumes"])
    services = found["services"]
    assert isinstance(services, dict)
    return services


def named_volumes(service: dict[str, Any]) -> set[str]:
    return {v.partition(":")[0] for v in service.get("volumes", []) if not v.startswith(("./", "../", "/"))}


def test_what_compose_names_is_there(services):
    ours = services["reason"]
    assert set(ours["depends_on"]) <= services.keys()
    assert all("healthcheck" in services[name] for name in ours["depends_on"])
    build = ours["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    mounted = [v.split(":")[0] for s in services.values() for v in s.get("volumes", []) if v.startswith(".")]
    assert mounted
    assert all((DEPLOY / source).is_file() for source in mounted)
    assert all(":" in service["image"] and not service["image"].endswith(":latest") for service in services.values())


def test_compose_gives_settings_that_fit_its_services(services):
    ours, vllm = services["reason"], services["vllm"]
    given = settings_of((DEPLOY / "compose.reason.toml").read_text(encoding="utf-8"))
    provider, _, served = given.model.partition("/")
    place = urlsplit(given.providers[provider].api_base or "")
    assert (place.hostname, place.port, place.path) == ("vllm", 8000, "/v1")
    command = vllm["command"]
    assert command[command.index("--served-model-name") + 1] == served
    assert f"127.0.0.1:{place.port}/health" in " ".join(vllm["healthcheck"]["test"])
    store = urlsplit(ours["environment"]["REASON_STORE"])
    postgres = services["postgres"]["environment"]
    assert store.hostname == "postgres"
    assert (store.username, store.path[1:]) == (postgres["POSTGRES_USER"], postgres["POSTGRES_DB"])
    assert store.password is None
    assert ours["environment"]["PGPASSWORD"] == postgres["POSTGRES_PASSWORD"]
    assert (
        redacted_location(Settings(store=ours["environment"]["REASON_STORE"]).store)
        == ours["environment"]["REASON_STORE"]
    )
    assert seconds(ours["stop_grace_period"]) >= drain_s(given) + MARGIN_S
    assert set(re.findall(r"^(\w+)=$", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE)) == {
        "POSTGRES_PASSWORD"
    }


def test_compose_publishes_on_the_loopback_alone(services):
    published = {name: service.get("ports", []) for name, service in services.items()}
    assert published == {"postgres": [], "vllm": [], "reason": ["127.0.0.1:8080:8080"]}


# -- Kubernetes


@pytest.mark.parametrize("name", sorted(path.name for path in KUBERNETES.glob("*.yaml")))
def test_every_manifest_says_that_it_was_not_run_on_a_cluster(name):
    assert re.search(r"not run|run on no cluster", (KUBERNETES / name).read_text(encoding="utf-8"), re.IGNORECASE)


def test_all_manifests_are_applied_or_named_elsewhere():
    listed = manifest("kustomization")["resources"]
    assert all((KUBERNETES / name).is_file() for name in listed)
    others = {p.name for p in KUBERNETES.glob("*.yaml")} - set(listed)
    assert others == {"kustomization.yaml", "secret.example.yaml", "prometheus-adapter.yaml"}
    for name in listed:
        found = manifest(Path(name).stem)
        assert found["apiVersion"]
        assert found["kind"].lower() == Path(name).stem
        assert found["metadata"]["name"] == "reason"


def test_selectors_find_the_pods():
    spec = manifest("deployment")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    assert manifest("service")["spec"]["selector"] == labels
    assert manifest("poddisruptionbudget")["spec"]["selector"]["matchLabels"] == labels
    target = manifest("horizontalpodautoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", manifest("deployment")["metadata"]["name"])


MANIFESTS = ["configmap", "deployment", "horizontalpodautoscaler", "poddisruptionbudget", "secret.example", "service"]


def container() -> tuple[dict[str, Any], dict[str, Any]]:
    pod = manifest("deployment")["spec"]["template"]["spec"]
    [found] = pod["containers"]
    return pod, found


def test_probes_and_ports_are_those_of_the_app(paths):
    _, ours = container()
    [port] = ours["ports"]
    assert ours["args"] == json.loads(
        re.search(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)[1]
    )
    assert ours["args"][ours["args"].index("--port") + 1] == str(port["containerPort"])
    for name, path in (("startup", "/healthz"), ("readiness", "/readyz"), ("liveness", "/healthz")):
        assert ours[f"{name}Probe"]["httpGet"] == {"path": path, "port": port["name"]}
        assert path in paths
    [served] = manifest("service")["spec"]["ports"]
    assert served["targetPort"] == port["name"]
    scraped = manifest("deployment")["spec"]["template"]["metadata"]["annotations"]
    assert scraped["prometheus.io/port"] == str(port["containerPort"])
    assert scraped["prometheus.io/path"] in paths
    assert settings_of(manifest("configmap")["data"]["reason.toml"]).serve.public_metrics is True


def test_a_pod_has_the_time_to_drain():
    pod, ours = container()
    [wait] = [int(word) for word in ours["lifecycle"]["preStop"]["exec"]["command"] if word.isdigit()]
    drain = drain_s(settings_of(manifest("configmap")["data"]["reason.toml"]))
    assert pod["terminationGracePeriodSeconds"] >= wait + drain + MARGIN_S


def test_a_pod_that_ends_gets_no_new_runs_and_is_not_restarted():
    """It accepts runs while `preStop` waits for the service; a liveness probe sees an alive process until its end."""
    _, ours = container()
    assert ours["lifecycle"]["preStop"]["exec"]["command"][0] == "sleep"
    serve = settings_of(manifest("configmap")["data"]["reason.toml"]).serve
    assert serve.drain_delay_s == 0  # `preStop` is that delay here
    assert ours["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert manifest("deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    startup = ours["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60


def test_the_proxy_notices_before_a_replica_refuses():
    """`drain_delay_s` of the documented settings is above the time in which the proxy's checks fail."""
    proxy = (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8")
    interval_ms, fall = map(int, re.search(r"check inter (\d+)ms fall (\d+)", proxy).groups())
    page = (DEPLOY.parent / "docs" / "deploying.md").read_text(encoding="utf-8")
    [delay_s] = map(float, re.findall(r"^drain_delay_s = ([\d.]+)", page, re.MULTILINE))
    assert delay_s >= 2 * fall * interval_ms / 1000


@pytest.mark.parametrize("version", ["1.30", "latest"])
@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_valid_by_the_published_schemas(name, version):
    """Of the oldest version that the package `kubernetes-validate` and we support, and of its newest."""
    schemas = pytest.importorskip("kubernetes_validate")
    used = schemas.latest_version() if version == "latest" else version
    schemas.validate(manifest(name), used, strict=True)
    broken = {**manifest(name), "specification": {}}
    with pytest.raises(schemas.ValidationError, match="specification"):
        schemas.validate(broken, used, strict=True)


def test_a_pod_has_no_rights_and_writes_where_it_may():
    pod, ours = container()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:" in (DEPLOY / "Dockerfile").read_text()
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert ours["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {m["name"]: m["mountPath"] for m in ours["volumeMounts"]}
    assert mounts.keys() == {v["name"] for v in pod["volumes"]}
    environment = dict(re.findall(r"(XDG_\w+|HOME)=(\S+)", (DEPLOY / "Dockerfile").read_text()))
    writable = {mounts[v["name"]] for v in pod["volumes"] if "emptyDir" in v}
    assert {f"{environment['XDG_DATA_HOME']}/reason", f"{environment['XDG_CACHE_HOME']}/reason", "/tmp"} == writable
    assert mounts["settings"] == f"{environment['XDG_CONFIG_HOME']}/reason"


def test_settings_and_secret_are_whole_and_the_example_holds_no_secret():
    pod, ours = container()
    [volume] = [v for v in pod["volumes"] if "configMap" in v]
    assert volume["configMap"]["name"] == manifest("configmap")["metadata"]["name"]
    secret = manifest("secret.example")
    assert ours["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    assert secret["stringData"]["PGPASSWORD"] == ""
    assert urlsplit(secret["stringData"]["REASON_STORE"]).password is None


def test_the_autoscaler_reads_a_metric_that_there_is():
    spec = manifest("horizontalpodautoscaler")["spec"]
    [metric] = [m["pods"] for m in spec["metrics"]]
    name = metric["metric"]["name"]
    assert name in {m.name for m in Metrics(frozenset()).registry.collect()}
    [rule] = manifest("prometheus-adapter")["rules"]["custom"]
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].startswith(f"{name}{{")
    runs = settings_of(manifest("configmap")["data"]["reason.toml"]).serve.max_runs
    assert int(metric["target"]["averageValue"]) == runs // 2 == ServeSettings().max_runs // 2
    assert spec["minReplicas"] >= 2 > manifest("poddisruptionbudget")["spec"]["maxUnavailable"]


def test_the_proxy_sends_text_on_as_it_comes():
    defaults = (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8").partition("defaults\n")[2].partition("\n\n")[0]
    assert "option http-no-delay" in [line.strip() for line in defaults.splitlines()]
