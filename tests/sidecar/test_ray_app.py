"""`reason.sidecar.ray_app`: the arguments of the Ray Serve application, without a cluster."""

from __future__ import annotations

import pytest
from reason.core.errors import UserError

pytest.importorskip("ray.serve", reason="ray[serve] is not installed")


def test_several_replicas_need_a_common_store(tmp_path, monkeypatch) -> None:
    from reason.sidecar.ray_app import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REASON_STORE", str(tmp_path / "runs.sqlite3"))
    with pytest.raises(UserError, match="num_replicas=2 needs a store that all replicas reach"):
        app({"num_replicas": "2"})
    with pytest.raises(UserError, match="num_replicas = '0'"):
        app({"num_replicas": "0"})
    with pytest.raises(UserError, match="replicas"):
        app({"replicas": "2"})
    deployment = app({})._bound_deployment
    assert (deployment.name, deployment.num_replicas, deployment.max_ongoing_requests) == ("reason", 1, 320)
