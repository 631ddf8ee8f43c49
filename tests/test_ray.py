"""A grid on a Ray cluster of two nodes, both of them on this machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpora import make_corpus

from frailt.model.config import ModelConfig
from frailt.paper.grid import GridConfig
from frailt.studies.cells import cell_folder
from frailt.studies.sweep import sweep
from frailt.training.config import TrainConfig
from frailt.training.run_folder import RunFolder

GRID = GridConfig(
    widths=(8, 16),
    shapes=("1", "1^2"),
    base=TrainConfig(model=ModelConfig(heads=2, vocab_size=300, context=16), tokens=640, batch=2, evaluations=1),
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """Two nodes with a core each, so that a task alone fills a node."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    # Loopback addresses other than 127.0.0.1, which Ray would replace by the machine's own.
    node: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 << 20}
    head = {**node, "node_ip_address": "127.0.0.2", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**node, node_ip_address="127.0.0.3")
    ray.init(address=cluster.address, _node_ip_address="127.0.0.2", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_cluster_trains_each_cell_once(cluster: object, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "data")
    looks = []
    outcome = sweep(GRID.cells(), corpus, tmp_path / "grid", on="ray", report=looks.append)
    assert outcome.failed == {}
    assert outcome.complete == looks[-1].complete == len(GRID.cells()) == 4
    for cell in GRID.cells():
        metrics = RunFolder(cell_folder(cell, corpus, tmp_path / "grid")).metrics()
        assert [line.step for line in metrics] == [10, 20, 20], "trained once, from start to end"
