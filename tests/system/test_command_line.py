"""Which config overrides make: parts are chosen by their name."""

import pytest

from sparse_ad.data.sources.generated import Generated
from sparse_ad.errors import UserError
from sparse_ad.methods.exemplar_coding import ExemplarCoding
from sparse_ad.sparse.channels import ChannelExactL0
from sparse_ad.system.command_line import find_config, keep_last, load_experiment


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


@pytest.mark.parametrize("config", ["configs/pca.py", "configs/quickstart.py"])
@pytest.mark.parametrize(
    ("given", "size"),
    [("256", (256,)), ("(256,)", (256,)), ("(256,320)", (256, 320)), ("256, 320", (256, 320))],
)
def test_sizes_are_one_number_or_two_whatever_the_default(config, given, size):
    assert load_experiment(config, [f"data.size={given}"]).data.size == size


@pytest.mark.parametrize(
    "given", ["0", "-3", "(1,2,3)", "2.5", "(8.0,)", "abc", "True", "(8,", "()"]
)
def test_a_wrong_size_is_one_line(given):
    with pytest.raises(UserError, match=r"data\.size") as caught:
        load_experiment("configs/pca.py", [f"data.size={given}"])
    assert "\n" not in str(caught.value)


SIZES = ["--config.data.size=64", "--config.data.size", "(32,48)", "--config.seed=3"]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (SIZES, SIZES[1:]),
        ([*SIZES, "a.png", SIZES[0], "b.png"], [SIZES[3], "a.png", SIZES[0], "b.png"]),
        (["--config.seed=1", "--config.seed=2"], ["--config.seed=1", "--config.seed=2"]),
    ],
)
def test_of_a_field_given_twice_the_last_value_counts(words, kept):
    start = ["launch.py", f"--config={find_config('configs/pca.py')}"]
    assert keep_last([*start, *words]) == [*start, *kept]


def test_lists_of_a_study_add_up():
    config = f"--config={find_config('configs/studies/sparsity.py')}"
    argv = ["launch.py", config, "--config.overrides=a=1", "--config.overrides=b=2"]
    assert keep_last(argv) == argv
