"""Random networks of the table through the whole chain; ``make fuzz`` draws 2,000."""

from tests.reliability.networks import converted


def test_random_networks_are_the_same_at_every_step() -> None:
    found = converted(40, seed=1)
    assert found.tried == 40
    assert found.equal >= 30
    assert found.exact >= 10
    assert found.folded >= 100
    assert found.signs > 10_000
