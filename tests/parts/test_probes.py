"""Linear probes: what they find, what they cannot, and that the features' scale does not matter."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from didact.core.errors import BadInput
from didact.parts.probes import linear_probe


def clouds(seed, n=150, spread=0.3):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return 2.0 * np.eye(3, 5)[y] + spread * rng.standard_normal((n, 5)), y


def test_it_finds_what_is_linear_and_nothing_in_noise():
    train, test = clouds(0), clouds(1)
    assert linear_probe(*train, *test) == 1.0
    noise = np.random.default_rng(2)
    found = linear_probe(noise.standard_normal((150, 5)), train[1], noise.standard_normal((150, 5)), test[1])
    assert 0.1 < found < 0.55


def test_it_equals_a_plain_logistic_regression_on_standardised_features():
    (x, y), (asked, truth) = clouds(0, spread=1.5), clouds(1, spread=1.5)
    plain = LogisticRegression(max_iter=2000).fit((x - x.mean(0)) / x.std(0), y)
    expected = (plain.predict((asked - x.mean(0)) / x.std(0)) == truth).mean()
    assert linear_probe(x, y, asked, truth) == expected < 1.0


def test_the_scale_of_a_feature_does_not_hide_it():
    (x, y), (asked, truth) = clouds(0), clouds(1)
    assert linear_probe(1e-4 * x + 7, y, 1e-4 * asked + 7, truth) == 1.0


def test_a_class_that_was_not_fitted_is_never_found():
    x, y = clouds(0)
    assert linear_probe(x[y < 2], y[y < 2], x[y == 2], y[y == 2]) == 0.0


def test_bad_input():
    x, y = clouds(0)
    with pytest.raises(BadInput, match="training features must be"):
        linear_probe(x[:, 0], y, x, y)
    with pytest.raises(BadInput, match="test features must be"):
        linear_probe(x, y, x, y[:-1])
    with pytest.raises(BadInput, match="5 wide and the test features 4"):
        linear_probe(x, y, x[:, :4], y)
    with pytest.raises(BadInput, match="only one"):
        linear_probe(x, 0 * y, x, y)
    with pytest.raises(BadInput, match="not finite"):
        linear_probe(x * np.nan, y, x, y)
