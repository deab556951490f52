"""The parity check: passes on equal runtimes, and sees each way of being different."""

import dataclasses

import numpy as np
import pytest

from frostbit.export.errors import ParityError
from frostbit.export.parity import compare, expected_values
from frostbit.export.runtimes import EngineRuntime, Images, Logits, Milliseconds, ReferenceRuntime
from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import Program
from tests.nets import every_op, images


class Altered(ReferenceRuntime):
    """The reference with one chosen fault."""

    name = "altered"

    def __init__(self, program: Program, fault: str) -> None:
        super().__init__(program)
        self.fault = fault

    def logits(self, images: Images) -> Logits:
        found = super().logits(images)
        if self.fault == "logit":
            found[0, 1] = np.nextafter(found[0, 1], np.float32(np.inf))
        if self.fault == "nan":
            found[0, 0] = np.nan
        return found

    def signs(self, images: Images) -> dict[str, bits.Words]:
        found = super().signs(images)
        if self.fault == "bit":
            found["conv1"][2, 1, 1, 0] ^= np.uint64(1)
        if self.fault == "missing":
            del found["conv1"]
        return found

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return np.ones(repeats)


@pytest.fixture(scope="module")
def program() -> Program:
    return every_op()


def test_equal_runtimes_pass(program: Program) -> None:
    labels = expected_values(program, images(program, 9))[1].argmax(axis=1)
    runtimes = [ReferenceRuntime(program), EngineRuntime(program)]
    report = compare(program, runtimes, images(program, 9), labels, batch=4)
    assert report.passed
    assert [each.correct for each in report.comparisons] == [9, 9]
    signs, _ = expected_values(program, images(program, 9))
    channels = {"sign": 9, "conv0": 33, "conv1": 9, "sign2": 18, "most": 18, "both": 36}
    total = sum(words[..., 0].size * channels[name] for name, words in signs.items())
    assert {each.sign_bits_compared for each in report.comparisons} == {total}


def test_one_flipped_bit_is_found_and_named(program: Program) -> None:
    report = compare(program, [Altered(program, "bit")], images(program, 6))
    (each,) = report.comparisons
    assert not report.passed
    assert (each.sign_bits_differing, each.images_flipped, each.first_difference) == (1, 1, "conv1")


def test_the_smallest_difference_of_an_exact_logit_fails(program: Program) -> None:
    report = compare(program, [Altered(program, "logit")], images(program, 6))
    assert not report.passed
    assert 0 < report.comparisons[0].logits_max_rel_diff < 1e-5


@pytest.mark.parametrize(("fault", "message"), [("nan", "finite"), ("missing", "'conv1'")])
def test_a_void_comparison_is_an_error(program: Program, fault: str, message: str) -> None:
    with pytest.raises(ParityError, match=message):
        compare(program, [Altered(program, fault)], images(program, 4))


def test_constant_outputs_prove_nothing(program: Program) -> None:
    same = np.repeat(images(program, 1), 5, axis=0)
    with pytest.raises(ParityError, match="same logits"):
        compare(program, [ReferenceRuntime(program)], same)
    with pytest.raises(ParityError, match="two images"):
        compare(program, [ReferenceRuntime(program)], images(program, 1))


def test_a_program_that_is_not_exact_promises_nothing(program: Program) -> None:
    def unsnapped(op: object) -> object:
        if getattr(op, "name", "") != "conv2":
            return op
        epilogue = dataclasses.replace(op.epilogue, mul=op.epilogue.mul / np.float32(3))
        return dataclasses.replace(op, epilogue=epilogue)

    loose = dataclasses.replace(program, ops=tuple(unsnapped(op) for op in program.ops))
    report = compare(loose, [ReferenceRuntime(loose)], images(program, 4))
    assert not report.promised
    assert report.comparisons[0].top1_agreement == 1.0
