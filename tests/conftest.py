import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def embedded_model():
    from pellucid.models.sources import load

    return load()
