"""Hessians that travel through several processes have the bits of one process."""

from __future__ import annotations

import numpy as np
import pytest

from calibrating import opened
from fake_peers import together
from gemmaq.calibration.activations import mirror
from gemmaq.calibration.hessians import add_products, chained, delivered, unit
from gemmaq.inference.peers import Peers

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_a_chain_of_processes_gives_the_bits_of_one(checkpoint, processes):
    """More columns than a panel, more panels than travel together, and a process without any inputs."""
    import torch

    random = np.random.default_rng(processes)
    parts = [torch.from_numpy(random.standard_normal((60, 5000)).astype(np.float32)) for _ in range(4)]
    with opened(checkpoint) as net, torch.no_grad():
        wanted = torch.zeros(5000, 5000)
        for part in parts:
            add_products(wanted, part, net.device)

        def run(peers: Peers) -> list[bool]:
            share = parts[peers.share(len(parts))]
            whole = chained(share, 5000, device=net.device, peers=peers)
            assert (whole is not None) == (peers.rank == peers.last)
            got = delivered(whole, 5000, [0, processes - 2], peers)
            assert (got is not None) == (peers.rank in (0, processes - 2))
            return [] if got is None else [bool((mirror(got) == mirror(wanted.clone())).all())]

        found = together(processes, run)
    assert [one for some in found for one in some] == [True] * len({0, processes - 2})


def test_sequences_whose_inputs_are_added_together_stay_together(checkpoint):
    with opened(checkpoint) as net:
        assert (unit(net, 512), unit(net, 500), unit(net, 4096)) == (4, 4, 1)
