import pytest
from reason.core.errors import ContextTooLong
from reason.serving.local.config import ContextLimits


@pytest.mark.parametrize(("context", "slots", "holder"), [(100, 80, "the cache"), (80, 100, "tiny"), (80, 80, "tiny")])
def test_error_names_the_smaller_limit(context, slots, holder):
    limits = ContextLimits("tiny", context, slots, 10)
    limits.check_length(80, "prompt")
    with pytest.raises(ContextTooLong, match=f"prompt need 200 tokens; {holder} holds 80") as reported:
        limits.check_length(200, "prompt")
    assert reported.value.limit == 80
