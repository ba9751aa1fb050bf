"""What is asked of Ray, where Ray itself is not needed."""

from contextlib import nullcontext

import pytest

from pnp_ovss.runs import cluster


class Ray:
    """Two GPUs and four cores; a call is made when it is waited for."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": 2.0, "CPU": 4.0}

    def remote(self, function):
        def options(**asked):
            self.asked = asked
            return type("Task", (), {"remote": staticmethod(lambda *arguments: (function, arguments))})

        return type("Function", (), {"options": staticmethod(options)})

    def wait(self, running):
        return running[:1], running[1:]

    def get(self, done):
        function, arguments = done
        return function(*arguments)


@pytest.mark.parametrize(
    ("device", "resources"),
    [("auto", {"num_gpus": 1}), ("cuda", {"num_gpus": 1}), ("cpu", {"num_cpus": 3})],
)
def test_a_call_has_a_gpu_to_itself_but_where_the_cpu_is_asked_for(monkeypatch, device, resources):
    ray, threads = Ray(), []
    monkeypatch.setattr(cluster, "_connected", lambda *_: nullcontext(ray))
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    calls = [lambda: "a", lambda: "b", lambda: "c"]
    done = list(cluster.call_on_ray(calls, workers=2, cpus=3, device=device))
    assert done == [(0, "a"), (1, "b"), (2, "c")]
    assert ray.asked == {"max_retries": cluster.RETRIES, **resources}
    assert threads == [3] * 3 * (device == "cpu")
