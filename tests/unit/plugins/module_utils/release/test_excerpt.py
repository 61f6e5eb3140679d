"""What is shown of the journal of a release that does not come up."""

from __future__ import annotations

from ansible_collections.ascent.scaling.plugins.module_utils._release.host import excerpt


def test_a_short_text_is_shown_whole() -> None:
    text = "\n".join(str(number) for number in range(75))
    assert excerpt(text) == text


def test_of_a_long_text_the_first_attempt_and_the_end_are_shown() -> None:
    shown = excerpt("\n".join(str(number) for number in range(200))).splitlines()
    assert shown[:60] == [str(number) for number in range(60)]
    assert shown[60] == "… 125 lines …"
    assert shown[61:] == [str(number) for number in range(185, 200)]
