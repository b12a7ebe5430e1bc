"""Build the images of `deploy/` with buildah, and run them as compose and Kubernetes would, with podman.

    apt-get install buildah podman podman-compose runc netavark aardvark-dns nftables mmdebstrap
    python tests/deploy/check_images.py [--full [--torch-index URL] [--suite bookworm]]

Needs root on Debian; takes minutes. What no registry gives here is replaced by a stand-in with the same name: Python's
image by Debian with its own Python, Postgres' image by Debian's Postgres, vLLM's by a server with fixed responses.
Docker itself, a GPU and a Kubernetes cluster are not needed, and not tried: podman runs the pod of the Deployment with
its settings, secret, mounts, limits and permissions, but neither `preStop` nor services, budgets and autoscalers.

`--full` builds the image with the embedded engine instead, and has it answer with the default model, which it fetches.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROGRAMS = ("buildah", "podman", "podman-compose", "runc", "mmdebstrap", "nft")
PYTHON = "docker.io/library/python:3.13-slim"
POSTGRES = "docker.io/library/postgres:17-alpine"
VLLM = "docker.io/vllm/vllm-openai:v0.32.0"
OTHER_PYTHON = "localhost/python:other"
SLIM, FULL = "localhost/reason:slim", "localhost/reason:full"
URL = "http://127.0.0.1:8080"
ANSWER = "42"
SLOW = {"tokens": 30, "first_s": 0.2, "token_s": 0.1}
"""Three seconds for a response."""
QUICK = {"tokens": 4}

CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""
"""Limits that a process without CAP_SYS_RESOURCE may set, and no systemd."""
CDI = Path("/run/cdi/reason-no-gpu.yaml")
NO_GPU = """
cdiVersion: 0.6.0
kind: nvidia.com/gpu
devices: [{name: all, containerEdits: {env: [NO_GPU=1]}}, {name: "0", containerEdits: {env: [NO_GPU=1]}}]
"""
STAND_INS = {
    PYTHON: """
FROM scratch
ADD root.tar /
COPY ca-certificates.crt /etc/ssl/certs/
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
RUN python3 -m venv /usr/local
CMD ["python3"]
""",
    POSTGRES: f"""
FROM {PYTHON}
RUN apt-get update && apt-get install -y --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PGDATA=/var/lib/postgresql/data
COPY postgres.sh /
ENTRYPOINT ["sh", "/postgres.sh"]
""",
    VLLM: f"""
FROM {PYTHON}
RUN apt-get update && apt-get install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/*
COPY sidecar_backend.py /
ENTRYPOINT ["sh", "-c", "exec python /sidecar_backend.py --host 0.0.0.0 --port 8000", "vllm"]
""",
}
POSTGRES_ENTRYPOINT = """set -e
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
install -d -o postgres -g postgres -m 0700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
    chown postgres /tmp/password
    as_postgres initdb -D "$PGDATA" -U "$POSTGRES_USER" --auth=scram-sha-256 --pwfile=/tmp/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    as_postgres pg_ctl -D "$PGDATA" -w start
    PGPASSWORD="$POSTGRES_PASSWORD" createdb -h /var/run/postgresql -U "$POSTGRES_USER" "$POSTGRES_DB"
    as_postgres pg_ctl -D "$PGDATA" -w stop
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups postgres -D "$PGDATA" -c listen_addresses='*'
"""


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def execute(*command: object, cwd: Path = ROOT, check: bool = True) -> str:
    """Execute a command; returns its output, and shows all of it if it failed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(words)}: status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout.strip()


def wait_until(happened: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Wait for something."""
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > seconds:
            raise SystemExit(f"not within {seconds:g} s: {what}")
        time.sleep(0.2)


# -- images


def build_stand_ins(folder: Path, names: Sequence[str], suite: str = "trixie") -> None:
    """Build the images that are neither here nor in a registry that is reached, on a release of Debian."""
    for name in names:
        if (
            not execute("podman", "images", "--quiet", name)
            and subprocess.run(["podman", "pull", "--quiet", name], capture_output=True).returncode
        ):
            context = folder / "stand-in"
            context.mkdir(exist_ok=True)
            if name in (PYTHON, OTHER_PYTHON):
                packages = "ca-certificates,python3,python3-venv"
                execute("mmdebstrap", "--variant=minbase", f"--include={packages}", suite, context / "root.tar")
                shutil.copy("/etc/ssl/certs/ca-certificates.crt", context)
            server = (ROOT / "benchmarks" / "sidecar_backend.py").read_text(encoding="utf-8")
            server = server.replace('"fake"', '"small"').replace('== b"/health"', 'in (b"/health", b"/version")')
            (context / "sidecar_backend.py").write_text(server, encoding="utf-8")
            (context / "postgres.sh").write_text(POSTGRES_ENTRYPOINT, encoding="utf-8")
            (context / "Dockerfile").write_text(STAND_INS.get(name, STAND_INS[PYTHON]), encoding="utf-8")
            execute("buildah", "build", "--network", "host", "--tag", name, context)
            say(f"{name}: no registry gives it here; a stand-in was built")


def build(name: str, dockerfile: str, *options: str) -> None:
    """Build an image by its Dockerfile."""
    began = time.monotonic()
    path = DEPLOY / dockerfile
    # Docker's format, as the other one has no HEALTHCHECK
    execute("buildah", "build", "--network", "host", "--format", "docker", *options, "-f", path, "--tag", name, ".")
    [image] = json.loads(execute("podman", "image", "inspect", name))
    settings = image["Config"]
    say(f"{name}: built in {time.monotonic() - began:.0f} s, {image['Size'] / 1e6:.0f} MB, user {settings['User']}")
    text = path.read_text(encoding="utf-8")
    instructions = dict(re.findall(r"^(USER|WORKDIR|STOPSIGNAL|CMD) (.+)$", text, re.MULTILINE))
    assert settings["User"] == instructions["USER"]
    assert settings["WorkingDir"] == instructions["WORKDIR"]
    assert settings["StopSignal"] == instructions["STOPSIGNAL"]
    assert settings["Cmd"] == json.loads(instructions["CMD"])
    assert "healthz" in " ".join(image["Healthcheck"]["Test"])


# -- a running server


def key_in(output: str) -> str:
    """The API key that `reason keys create` printed."""
    [key] = re.findall(r"reason-[a-z2-7]{8}-[a-z2-7]{52}", output)
    return str(key)


def is_ready(url: str) -> bool:
    """Whether a server can take requests."""
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    return False


def ask(url: str, key: str, question: str = "What is 6 times 7?") -> httpx.Response:
    """Ask a question over OpenAI's interface."""
    return httpx.post(
        f"{url}/v1/chat/completions",
        json={"model": "reason/cot", "messages": [{"role": "user", "content": question}], "max_tokens": 200},
        headers={"Authorization": f"Bearer {key}"},
        timeout=300,
    )


def check_permissions(container: str) -> None:
    """The server's user is not root, has no capability, and can write only where it must."""
    status = execute("podman", "exec", container, "cat", "/proc/1/status")
    assert re.search(r"^Uid:\s+10001\s+10001", status, re.MULTILINE), status
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE), status
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), status
    script = (
        "import os, reason\n"
        "for p in ('/', '/etc', '/etc/reason', '/usr/local/bin', os.path.dirname(reason.__file__), '/var/lib/reason', "
        "'/var/cache/reason', '/tmp'):\n"
        "    try:\n        open(p + '/x', 'w').close()\n        print(p)\n    except OSError: pass"
    )
    writable = execute("podman", "exec", container, "python", "-c", script).split()
    assert writable == ["/var/lib/reason", "/var/cache/reason", "/tmp"], writable
    say(f"{container}: user 10001 without capabilities, writes only to {', '.join(writable)}")


def check_drain(container: str, url: str, key: str, set_pace: Callable[[dict[str, Any]], object]) -> None:
    """A request in flight when the container is told to stop gets its response, and the process ends with 0."""
    set_pace(SLOW)
    responses: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: responses.append(ask(url, key)))
    asking.start()
    time.sleep(1.0)
    began = time.monotonic()
    execute("podman", "stop", "--time", "60", container)
    took = time.monotonic() - began
    asking.join()
    set_pace(QUICK)
    if responses[0].status_code != 200 or ANSWER not in responses[0].text:
        logs = subprocess.run(["podman", "logs", container], capture_output=True, text=True)
        raise SystemExit(f"{responses[0].text}\n{logs.stdout[-3000:]}{logs.stderr[-3000:]}")
    code = execute("podman", "inspect", "--format", "{{.State.ExitCode}}", container)
    assert code == "0", code
    say(f"{container}: told to stop with a request in flight, answered it and ended with 0 after {took:.1f} s")


# -- compose


@contextmanager
def compose(folder: Path) -> Iterator[Callable[..., str]]:
    """`deploy/compose.yaml` in a copy of the folder, with a password; yields a function that calls compose."""
    shutil.copytree(DEPLOY, folder / "deploy")
    CDI.parent.mkdir(exist_ok=True)
    CDI.write_text(NO_GPU, encoding="utf-8")  # what the service vllm reserves
    (folder / "deploy" / ".env").write_text("POSTGRES_PASSWORD=secret\n", encoding="utf-8")
    arguments = ("podman-compose", "-f", folder / "deploy" / "compose.yaml")

    def call(*words: str) -> str:
        return execute(*arguments, *words, cwd=folder)

    try:
        yield call
    finally:
        execute(*arguments, "down", "--volumes", cwd=folder, check=False)
        CDI.unlink()


def address_of(container: str) -> str:
    """Address of a container in its network."""
    [found] = json.loads(execute("podman", "inspect", container))
    return next(network["IPAddress"] for network in found["NetworkSettings"]["Networks"].values())


def check_compose(call: Callable[..., str]) -> str:
    """The commands of `deploy/compose.yaml`, a question, and the end; returns the key."""
    call("up", "-d", "postgres")
    wait_until(
        lambda: (
            "accepting" in execute("podman", "exec", "reason_postgres_1", "pg_isready", "-U", "reason", check=False)
        ),
        "Postgres accepts connections",
    )
    key = key_in(call("run", "--rm", "--no-deps", "reason", "reason", "keys", "create", "me"))
    # podman has no systemd here that repeats health checks, for which `depends_on` waits
    call("up", "-d", "--no-deps", "vllm", "reason")
    wait_until(lambda: is_ready(URL), "the server of compose is ready")
    for container in ("reason_postgres_1", "reason_vllm_1", "reason_reason_1"):
        execute("podman", "healthcheck", "run", container)
    say("compose: the health checks of postgres, vllm and reason pass")
    assert httpx.get(f"{URL}/v1/models", timeout=30).status_code == 401
    response = ask(URL, key)
    assert response.status_code == 200, response.text
    assert ANSWER in response.text, response.text
    say(f"compose: answered through Postgres and the model server: {response.json()['choices'][0]['message']}")
    check_permissions("reason_reason_1")
    vllm = f"http://{address_of('reason_vllm_1')}:8000"
    check_drain("reason_reason_1", URL, key, lambda pace: httpx.post(f"{vllm}/pace", json=pace).raise_for_status())
    return key


# -- Kubernetes


def check_pod(folder: Path, key: str) -> None:
    """The Deployment's pod with its ConfigMap and the example's Secret, and compose's Postgres and model server."""
    documents = [yaml.safe_load((DEPLOY / "kubernetes" / f"{name}.yaml").read_text("utf-8")) for name in MANIFESTS]
    for document in documents:
        if document["kind"] == "Secret":
            document["stringData"]["PGPASSWORD"] = "secret"
    played = folder / "pod.yaml"
    played.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    execute("podman", "kube", "play", "--network", "reason_default", played)
    container = "reason-pod-reason"
    try:
        pod = json.loads(execute("podman", "pod", "inspect", "reason-pod"))
        pod = pod[0] if isinstance(pod, list) else pod
        url = f"http://{address_of(pod['InfraContainerID'])}:8080"
        wait_until(lambda: is_ready(url), "the pod is ready")
        for probe in ("/healthz", "/readyz", "/metrics"):  # without a key, as the cluster's components ask
            httpx.get(url + probe, timeout=30).raise_for_status()
        [found] = json.loads(execute("podman", "inspect", container))
        limit = documents[1]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
        assert found["HostConfig"]["Memory"] == int(limit.removesuffix("Gi")) << 30, found["HostConfig"]["Memory"]
        response = ask(url, key)
        assert response.status_code == 200, response.text
        assert ANSWER in response.text, response.text
        say(f"pod: probes pass, memory limit {limit}, answered: {response.json()['choices'][0]['message']}")
        check_permissions(container)
        vllm = f"http://{address_of('reason_vllm_1')}:8000"
        check_drain(container, url, key, lambda pace: httpx.post(f"{vllm}/pace", json=pace).raise_for_status())
    finally:
        execute("podman", "kube", "down", played, check=False)


# -- the embedded engine


def check_full(folder: Path, suite: str, torch_index: str) -> None:
    """Build the image with the embedded engine, and ask it; the default model is fetched meanwhile."""
    build_stand_ins(folder, [OTHER_PYTHON], suite)
    base = f"{PYTHON.rpartition('/')[2]}=docker-image://{OTHER_PYTHON}"
    options = ["--build-context", base, *(["--build-arg", f"TORCH_INDEX={torch_index}"] if torch_index else [])]
    build(FULL, "Dockerfile.full", *options)
    volumes = ("-v", "reason-full:/var/lib/reason", "-v", "reason-models:/var/cache/reason")
    name = "reason-full"
    try:
        key = key_in(execute("podman", "run", "--rm", *volumes, FULL, "reason", "keys", "create", "me"))
        rights = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
        options = ["--name", name, "--hostname", "reason", "-p", "127.0.0.1:8080:8080"]
        certificates = ("-e", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")  # this machine's, to fetch the model
        execute("podman", "run", "-d", *options, *rights, *certificates, *volumes, FULL)
        wait_until(lambda: is_ready(URL), "the server with the embedded engine is ready", 300)
        execute("podman", "healthcheck", "run", name)
        response = ask(URL, key)
        assert response.status_code == 200, response.text
        say(f"{FULL}: the embedded model answered: {response.json()['choices'][0]['message']['content']!r}")
        check_permissions(name)
        execute("podman", "stop", "--time", "60", name)
        assert execute("podman", "inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    except BaseException:
        say(execute("podman", "logs", "--tail", "20", name, check=False))
        raise
    finally:
        execute("podman", "rm", "--force", name, check=False)
        execute("podman", "volume", "rm", "reason-full", "reason-models", check=False)


MANIFESTS = ("configmap", "deployment", "secret.example")


def main() -> int:
    """Build and run everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--torch-index", default="", help="Where torch is fetched from")
    parser.add_argument("--suite", default="trixie", help="Release of Debian whose Python is under the embedded engine")
    args = parser.parse_args()
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing or os.getuid() != 0:
        raise SystemExit(f"needs root and {', '.join(missing) or 'nothing else'}; see the head of this file")
    with tempfile.TemporaryDirectory(prefix="reason-images-") as name:
        folder = Path(name)
        (folder / "containers.conf").write_text(CONTAINERS, encoding="utf-8")
        os.environ.update(CONTAINERS_CONF=str(folder / "containers.conf"), PODMAN_IGNORE_CGROUPSV1_WARNING="1")
        if args.full:
            check_full(folder, args.suite, args.torch_index)
        else:
            build_stand_ins(folder, [PYTHON, POSTGRES, VLLM])
            build(SLIM, "Dockerfile")
            with compose(folder) as call:
                check_pod(folder, check_compose(call))
    say("all checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
