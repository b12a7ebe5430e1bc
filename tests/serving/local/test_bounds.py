import pytest
from reason.core.errors import ContextTooLong
from reason.serving.local.bounds import Bounds


@pytest.mark.parametrize(
    ("context", "columns", "holder"), [(100, 80, "the cache"), (80, 100, "tiny"), (80, 80, "tiny")]
)
def test_the_smaller_bound_is_told(context, columns, holder):
    bounds = Bounds("tiny", context, columns, 10)
    bounds.check_length(80, "prompt")
    with pytest.raises(ContextTooLong, match=f"prompt need 200 tokens; {holder} holds 80") as told:
        bounds.check_length(200, "prompt")
    assert told.value.limit == 80
