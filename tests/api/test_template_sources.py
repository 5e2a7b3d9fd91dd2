"""What may a template be made of? Anything: it is refused with its place, or it is taken and can be rendered."""

from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import Shared
from tests.kit.api import refusal
from tests.kit.store import add_template

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIECES = st.sampled_from(
    "{{ }} {% %} {{- -%} name items.0 items[0] [ ] ?? | upcase default: 'x' \" & &lt; if endif else for a in endfor (1..9) "
    "raw endraw comment endcomment assign = capture endcapture case when unless liquid echo cycle tablerow <p> \n . "
    "99999999 -1 and or contains == blank # unsubscribeUrl data date: %Y".split(" ")
)
SOURCES = st.one_of(st.lists(PIECES, max_size=25).map(" ".join), st.text(st.characters(codec="utf-8"), max_size=60))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
DATA = st.dictionaries(st.sampled_from(["name", "items", "a", "data", "date", "id"]), VALUES, max_size=4)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def template_id(shared: Shared) -> str:
    """Make the template that is written again and again."""
    return await add_template(shared.relay, shared.acme.id)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(subject=SOURCES, body=SOURCES, data=DATA)
async def test_any_text_is_refused_with_its_place_or_can_be_previewed(
    shared: Shared, template_id: str, subject: str, body: str, data: dict[str, Any]
) -> None:
    path = f"/templates/{template_id}"
    changes = {"subject": subject or "-", "body": body or "-"}
    response = await shared.http.patch(path, headers=shared.acme.headers, json=changes)
    if response.status_code != 200:
        assert refusal(response) == (400, "VALIDATION_ERROR")
        place = response.json()["error"]["details"]
        lines = changes[place["field"]].split("\n")
        assert 1 <= place["line"] <= len(lines)
        assert 1 <= place["column"] <= len(lines[place["line"] - 1]) + 1
        return
    preview = await shared.http.post(f"{path}/preview", headers=shared.acme.headers, json={"data": data})
    assert preview.status_code == 200
    assert "\n" not in preview.json()["subject"]
