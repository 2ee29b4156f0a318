"""One owner of function overrides: who is met, what is off inside, and that nothing outlives it."""

import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.engine.functions import Functions

X = torch.tensor([-1.0, 2.0])


def doubled(function, args, kwargs):
    return 2 * function(*args, **kwargs)


def test_a_function_is_met_whoever_calls_it_and_counted():
    table = dict.fromkeys((functional.relu, torch.relu, Tensor.relu), doubled)
    with Functions(table) as functions:
        found = [nn.ReLU()(X), functional.relu(X), torch.relu(X), X.relu()]
        assert torch.tanh(X).equal(X.tanh())
    assert all(each.tolist() == [0.0, 4.0] for each in found)
    assert functions.met == {functional.relu: 2, torch.relu: 1, Tensor.relu: 1}
    assert X.relu().tolist() == [0.0, 2.0]


def test_inside_of_a_replacement_the_table_is_off():
    """Else `torch.relu`, which `functional.relu` calls, would be doubled again."""
    with Functions({torch.relu: doubled, functional.relu: doubled}) as functions:
        assert functional.relu(X).tolist() == [0.0, 4.0]
    assert functions.met == {functional.relu: 1}


def test_another_thread_has_torchs_own():
    found = []
    with Functions({torch.relu: doubled}):
        other = threading.Thread(target=lambda: found.append(torch.relu(X)))
        other.start()
        other.join()
    assert found[0].tolist() == [0.0, 2.0]


def test_a_table_may_be_anything_that_finds_a_replacement():
    class ByName:
        def get(self, function):
            return doubled if function.__name__ == "relu" else None

    with Functions(ByName()):
        assert torch.relu(X).tolist() == X.relu().tolist() == [0.0, 4.0]
        assert X.tanh().equal(torch.tanh(X))


def test_a_mode_that_an_interrupt_in_torch_has_taken_off_is_not_missed():
    def breaks(function, args, kwargs):
        torch._C._pop_torch_function_stack()
        raise KeyboardInterrupt

    before = torch._C._len_torch_function_stack()
    with pytest.raises(KeyboardInterrupt), Functions({torch.relu: doubled}), Functions({torch.relu: breaks}):
        torch.relu(X)
    assert torch._C._len_torch_function_stack() == before
