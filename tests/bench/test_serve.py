"""The platform that the serving benchmark asks."""

import numpy as np
import psutil
import pytest
from tests.inference.running import png

from fulcrum.cli.bench_platform import PlatformApart, RunningPlatform, served_model
from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.domain.tasks import ClassSet
from fulcrum.engine.local import LocalEngine


def test_it_runs_beside_the_process_that_asks_and_ends_with_it(tmp_path):
    task, model, image = ClassSet(("dog", "cat")), served_model("demo"), png(3)
    known = LocalEngine().predict(model.local, [image], task)[0].logits
    apart = PlatformApart(tmp_path)
    with apart as started, RunningPlatform(started, apart.memory_bytes) as running:
        engine = running.engine("bench")
        np.testing.assert_allclose(engine.predict(model.remote, [image], task)[0].logits, known, atol=1e-3)
        over_http = running.predict_over_http(model.remote, image, task)
        np.testing.assert_allclose(over_http(), known, atol=1e-3)
        assert running.memory_bytes() > 100 << 20
        [supervisor] = [p for p in psutil.Process().children() if p.pid == apart.pid]
        services = supervisor.children(recursive=True)
        assert len(services) >= 4
    assert not supervisor.is_running()
    _, alive = psutil.wait_procs(services, timeout=20)
    assert not alive


def test_what_prevents_its_start_is_told(tmp_path):
    (tmp_path / "data").write_text("no folder")
    with pytest.raises(ServiceUnavailable, match="data"), PlatformApart(tmp_path):
        pass
