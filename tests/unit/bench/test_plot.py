"""Pictures: ticks, places, and what is drawn of a measurement that was cut off."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from sidecar.bench.plot import BLUE, GREEN, Bar, Chart, Point, Series, draw, draw_bars, short, ticks

SVG = "{http://www.w3.org/2000/svg}"


def chart(*points: Point) -> Chart:
    return Chart("a < b", "CPUs", "seconds", (Series("ours", BLUE, points), Series("theirs", GREEN, points[:1])))


def circles(picture: str) -> list[dict[str, str]]:
    return [element.attrib for element in ElementTree.fromstring(picture).iter(f"{SVG}circle")]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (3, 70, [2, 5, 10, 20, 50, 100]),
        (1, 10, [1, 2, 5, 10]),
        (0.03, 0.06, [0.02, 0.05, 0.1]),
        (5, 5, [5]),
    ],
)
def test_ticks_enclose_the_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_labels_of_ticks() -> None:
    assert [short(value) for value in (0.02, 5.0, 2e6)] == ["0.02", "5", "2M"]


def test_a_point_twice_as_high_is_drawn_higher_by_the_same_step_each_time() -> None:
    places = [float(one["cy"]) for one in circles(draw(chart(*(Point(n, 2.0**n, 2.0**n, 2.0**n) for n in (1, 2, 3)))))]
    assert places[0] > places[1] > places[2]
    assert places[0] - places[1] == pytest.approx(places[1] - places[2], abs=0.2)


def test_what_was_cut_off_is_hollow_and_has_an_arrow() -> None:
    picture = draw(chart(Point(2, 4, 3, 5), Point(4, 120, 120, 120, bounded=True)))
    assert sorted({one["fill"] for one in circles(picture)}) == sorted({BLUE, GREEN, "white"})
    assert "more than 120" in picture
    assert len(re.findall("<path ", picture)) == 1


def test_text_is_escaped_and_every_line_is_named() -> None:
    texts = [element.text for element in ElementTree.fromstring(draw(chart(Point(2, 4, 3, 5)))).iter(f"{SVG}text")]
    assert {"a < b", "ours", "theirs"} <= set(texts)


def test_bars_are_as_long_as_their_values_are_large() -> None:
    bars = [Bar("x", 1, 1, 1, "1 us", BLUE), Bar("y", 10, 9, 12, "10 us", GREEN)]
    drawn = [element.attrib for element in ElementTree.fromstring(draw_bars("t", "us", bars)).iter(f"{SVG}rect")][1:]
    assert [one["fill"] for one in drawn] == [BLUE, GREEN]
    assert 0 < float(drawn[0]["width"]) < float(drawn[1]["width"])
