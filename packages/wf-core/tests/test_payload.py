"""Values as they travel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wf_core import payload
from wf_core.errors import PayloadError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_a_value_survives_the_journey(value):
    """Decoding what was encoded gives the value, integers of any size included."""
    assert payload.decode(payload.encode(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {1, 2}, object(), b"x"])
def test_what_is_no_json_is_refused(value):
    """NaN, infinities, lone surrogates, sets, objects and bytes are PayloadErrors that say so."""
    with pytest.raises(PayloadError):
        payload.encode({"value": value})


def test_the_limit_is_named_with_the_remedy():
    """A large value is refused with its size, the limit and what to do."""
    with pytest.raises(PayloadError, match=r"the output is 1,002 bytes .* more than the 100 .*APP_MAX_PAYLOAD_BYTES"):
        payload.encode("x" * 1000, limit=100, what="the output")


def test_depth_is_bounded():
    """200 levels pass, 201 do not; brackets in texts do not count."""
    value: object = "[" * 500 + '\\"{'
    for _ in range(payload.MOST_DEPTH):
        value = [value]
    assert payload.decode(payload.encode([value][0])) == value
    with pytest.raises(PayloadError, match="200 levels"):
        payload.encode([value])
