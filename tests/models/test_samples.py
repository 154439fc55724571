"""The sample is a published size."""

from gemmaq.models.families import size_by_name
from gemmaq.models.samples import SAMPLE


def test_the_sample_is_a_published_size() -> None:
    assert size_by_name(SAMPLE.name) is not None
    assert SAMPLE.source == f"sample:{SAMPLE.name}"
