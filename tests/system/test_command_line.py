"""Which config overrides make: parts are chosen by their name."""

import pytest

from sparse_ad.data.sources.generated import Generated
from sparse_ad.errors import UserError
from sparse_ad.methods.exemplar_coding import ExemplarCoding
from sparse_ad.sparse.channels import ChannelExactL0
from sparse_ad.system.command_line import load_experiment


def test_another_source_keeps_what_both_have():
    experiment = load_experiment("configs/pca.py", ["data.size=(32,32)", "data.name=generated"])
    assert isinstance(experiment.data, Generated)
    assert (experiment.data.size, experiment.data.color) == ((32, 32), "rgb")


def test_another_detector_begins_with_its_own_defaults():
    """Not with the 200 atoms of the detector before it."""
    changes = ["method.name=exemplar_coding", "method.coder.nonzeros=2"]
    method = load_experiment("configs/sparse_patches.py", changes).method
    assert isinstance(method, ExemplarCoding)
    assert (method.atoms, method.coder.nonzeros) == (ExemplarCoding().atoms, 2)


def test_a_part_of_a_detector_by_its_name():
    changes = ["method.coder.name=exact_l0", "method.coder.nonzeros=2"]
    method = load_experiment("configs/mlf_sc.py:published_code", changes).method
    assert method.coder == ChannelExactL0(2)


def test_a_field_of_another_part_is_named_with_its_owner():
    with pytest.raises(UserError, match=r"penalty: .* a field of method\.coder\.name = lasso"):
        load_experiment("configs/mlf_sc.py:published_code", ["method.coder.penalty=2.0"])


def test_a_pooling_rule_that_nobody_reads_is_refused():
    with pytest.raises(UserError, match=r"method\.pool\.rule = 'max': .* score_of = positions"):
        load_experiment("configs/mlf_sc.py:published_code", ["method.pool.rule=max"])
