"""A notebook's parameters: known names of the declared types, or one line; cells as IPython's `In` holds them."""

import pytest

from debiaslib.errors import InputError
from debiaslib.study.check_parameters import check_parameters

DECLARED = """experiment: str = "quick"  # an experiment of config/ by name
weighting: str = "debiased"  # of those in the experiment
seed: int = 0  # of the run
level: float = 0.95  # of the intervals
shown: bool = True  # draw it
steps: list = [2, 5]  # in rows
"""
VALUES = {"experiment": "quick", "weighting": "debiased", "seed": 0, "level": 0.95, "shown": True, "steps": [2, 5]}


def namespace(*cells, **changed):
    """What `globals()` holds after those cells; IPython's `In` begins with an empty entry."""
    return {"In": ["", *cells], **VALUES, **changed}


def refused(*cells, **changed):
    with pytest.raises(InputError) as caught:
        check_parameters(namespace(*cells, **changed))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parameters_that_papermill_gave():
    injected = '# Parameters\nexperiment = "cifar10"\nseed = 3\nlevel = 0.5\nshown = False\nsteps = [1]\n'
    check_parameters(namespace(DECLARED, injected, experiment="cifar10", seed=3, level=0.5, shown=False, steps=[1]))


def test_an_unknown_parameter_names_the_nearest_and_all():
    line = refused(DECLARED, '# Parameters\nexperimnet = "cifar10"\n', experimnet="cifar10")
    assert line.startswith("parameter 'experimnet' is unknown; did you mean 'experiment'?")
    assert line.endswith("known: experiment, weighting, seed, level, shown, steps")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("seed", 1.0, "int"),
        ("seed", True, "int"),  # a bool is an int to Python
        ("experiment", 3, "str"),
        ("level", "0.5", "float"),
        ("shown", 1, "bool"),
        ("steps", 5, "list"),
    ],
)
def test_a_value_of_another_type(name, value, kind):
    for cells in ([DECLARED], [DECLARED, f"# Parameters\n{name} = {value!r}\n"]):
        assert refused(*cells, **{name: value}) == f"parameter {name} is {value!r}; it must be of type {kind}"


def test_a_cell_with_magics_declares_nothing_and_breaks_nothing():
    check_parameters(namespace("%matplotlib inline\nseed: str = 'no'", DECLARED))
