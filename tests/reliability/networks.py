"""Random networks out of the table of what converts, through the whole chain."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.pipeline.network.chain import follow
from tests.pipeline.network.user_nets import Drawn, networks


@dataclass
class Converted:
    """Counts over networks; a difference or a refusal fails the run.

    Attributes:
        tried: networks; equal: those that were compared to the end and are equal.
        exact: of these, with logits that are exact by proof, and equal bit for bit.
        numerical: settled with sums that float32 cannot hold exactly, and refused so.
        alike: gave every image the same logits, so that equal ones would prove nothing.
        folded: images on which the folded network was compared with the frozen one.
        signs: sign bits compared.
    """

    tried: int = 0
    equal: int = 0
    exact: int = 0
    numerical: int = 0
    alike: int = 0
    folded: int = 0
    signs: int = 0

    def row(self) -> str:
        """For the page."""
        return (
            f"{self.tried:,} tried: 0 differences, 0 refused late; {self.equal:,} equal to the end "
            f"({self.signs:,} sign bits; logits of {self.exact:,} exact by proof), {self.alike} "
            f"with the same logits for every image, {self.numerical} with sums too large for "
            "exact float32"
        )


def converted(count: int, seed: int = 0) -> Converted:
    """Draw ``count`` networks; AssertionError or UserError, shrunk, where a step is not right."""
    found = Converted()

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(networks())
    def one(made: tuple[Drawn, tuple[int, int, int]]) -> None:
        chained = follow(*made)
        found.tried += 1
        found.equal += not chained.unproved
        found.exact += chained.head_exact
        found.folded += chained.folded
        found.signs += chained.signs
        found.alike += "the same logits" in chained.unproved
        found.numerical += "same logits" not in chained.unproved and bool(chained.unproved)

    one()
    return found
