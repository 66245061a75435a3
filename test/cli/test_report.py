"""The report: parses, needs nothing from outside, says the numbers given, survives empty runs."""

from __future__ import annotations

from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from pose_node.cli.charts import Scale, edges_between, runs
from pose_node.cli.report import kind_of, percentiles, write_report

VOID = {'meta', 'img', 'br', 'hr', 'link', 'input'}
MEASURED = ('score', 'add_share', 'rotation_deg', 'translation_mm', 'nees', 'sigma_mm')


class Page(HTMLParser):
    """Checks that tags close in order; keeps the texts and the attributes that load things."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ('src', 'href', 'srcset')]
        if tag not in VOID and not self.get_starttag_text().endswith('/>'):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return ' '.join(self.texts)


def frame(index, visible=1.0, add_share=0.02, latency_ms=30.0, **more):
    found = add_share is not None
    measured = dict(zip(MEASURED, (0.8, add_share, 1.2, 4.0, 4.1, 3.2)))
    return {
        'index': index, 'stamp_s': index / 10, 'visible': visible, 'found': found,
        **{name: measured[name] if found else None for name in MEASURED},
        'latency_ms': latency_ms, 'stage_ms': {'decode': 1.0, 'network': 20.0 + index}, **more,
    }  # fmt: skip


def results(frames, **more):
    check = {'name': 'a pose', 'value': 0.983, 'wanted': '>= 97 %', 'passed': True}
    return {
        'bundle': 'drill', 'object': 'drill', 'diameter_m': 0.284, 'bag': 'drill_bag',
        'machine': 'a machine', 'passed': True, 'checks': [check], 'frames': frames,
        'pictures': [], **more,
    }  # fmt: skip


def report(tmp_path, *args, **more) -> tuple[str, Page]:
    path = write_report(results(*args, **more), tmp_path)
    assert path == tmp_path / 'report.html'
    text = path.read_text(encoding='utf-8')
    return text, Page(text)


def test_is_one_file_with_its_pictures(tmp_path, rng):
    (tmp_path / 'frames').mkdir()
    picture = rng.integers(0, 255, (24, 32, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'frames/000001.jpg'), picture)
    pictures = [
        {'jpeg': 'frames/000001.jpg', 'caption': 'the first'},
        {'jpeg': 'frames/000002.jpg', 'caption': 'the lost'},
    ]
    text, page = report(tmp_path, [frame(i) for i in range(20)], pictures=pictures)
    assert [load[:23] for load in page.loads] == ['data:image/jpeg;base64,']
    assert not {'script', 'link', 'iframe'} & set(page.tags)
    for word in ('http://', 'https://', 'url(', '@import'):
        assert word not in text
    assert 'the first' in page.text
    assert 'frames/000002.jpg is missing.' in page.text


def test_says_the_numbers(tmp_path, rng):
    latencies = rng.gamma(4.0, 10.0, 40)
    frames = [frame(i, latency_ms=float(latencies[i])) for i in range(40)]
    frames[3] = frame(3, add_share=None)  # missed
    frames[4] = frame(4, add_share=0.3)  # wrong
    frames[5] = frame(5, visible=0.0)  # false
    frames[6] = frame(6, visible=0.0, add_share=None)  # rightly nothing
    for i in range(3, 7):
        frames[i]['latency_ms'] = float(latencies[i])
    _, page = report(tmp_path, frames)
    for p in (50, 90, 99):
        assert f'p{p} {np.percentile(latencies, p):.1f} ms' in page.texts
        assert f'{np.percentile(20.0 + np.arange(40), p):.1f}' in page.texts  # the network's row
    for text in ('98.3 %', '≥ 97 %', '37 of 38 frames', '36 of 38 frames', 'in 2 frames',
                 '97.4 %', '94.7 %', 'diameter 284 mm', 'a machine'):  # fmt: skip
        assert text in page.text, text
    assert page.texts[page.texts.index('False poses') + 1] == '1'


def test_nees_is_compared_with_chi_square(tmp_path):
    frames = [frame(i) for i in range(10)]
    for f, nees in zip(frames, (1, 2, 3, 4, 5, 6, 7, 8, 12.5, 12.7)):
        f['nees'] = nees
    _, page = report(tmp_path, frames)
    assert {'6.1', '5.5', '90.0 %'} <= set(page.texts)  # mean, median, share below 12.592


def test_sums_are_not_stages(tmp_path):
    stage_ms = {'wait': 5.0, 'network': 20.0, 'total_ms': 21.5, 'age_ms': 9e9}
    _, page = report(tmp_path, [frame(0, stage_ms=stage_ms)])
    assert {'wait', 'network', 'all stages but wait', '21.5'} <= set(page.texts)
    assert 'age_ms' not in page.texts


@pytest.mark.parametrize(
    ('visible', 'add_share', 'kind'),
    [(1, 0.09, 'good'), (1, 0.1, 'warn'), (0, 0.02, 'bad'), (0.5, None, 'missed'),
     (0.4, None, 'hidden'), (0, None, 'empty')],
)  # fmt: skip
def test_what_became_of_a_frame(visible, add_share, kind):
    assert kind_of(frame(0, visible, add_share)) == kind


@pytest.mark.parametrize(
    'frames',
    [
        [],
        [frame(0)],
        [frame(0, add_share=None, latency_ms=None, stage_ms={})],
        [frame(i, 0.0, None, None, stage_ms={}) for i in range(5)],
        [frame(i, add_share=0.0, translation_mm=0.0, sigma_mm=0.0, nees=0.0) for i in range(3)],
        [frame(i, add_share=1e4, translation_mm=1e6, nees=1e9, latency_ms=0.0) for i in range(3)],
        [frame(i, visible=0.0, **dict.fromkeys(MEASURED[1:5])) for i in range(3)],
        [frame(i, add_share=float('nan'), latency_ms=float('nan')) for i in range(3)],
        [frame(0), frame(0)],  # the same stamp twice
    ],
)
def test_survives(tmp_path, frames):
    text, page = report(tmp_path, frames, checks=[], passed=False)
    assert 'Failed' in page.text
    for word in ('nan', 'inf'):
        assert f'"{word}' not in text and f' {word} ' not in text and f',{word}' not in text


def test_text_is_escaped(tmp_path):
    evil = '<b>&"evil'
    pictures = [{'jpeg': 'no.jpg', 'caption': evil}]
    check = {'name': evil, 'value': 0.0, 'wanted': '<= 2 %', 'passed': False}
    text, page = report(
        tmp_path, [frame(0, stage_ms={evil: 1.0})], pictures=pictures, checks=[check],
        object=evil, bundle=evil, bag=evil, machine=evil,
    )  # fmt: skip
    assert evil not in text
    assert page.text.count(evil) >= 7


def test_percentiles_are_those_of_numpy(rng):
    values = rng.normal(size=101)
    assert percentiles(np.append(values, np.nan)) == pytest.approx(
        np.percentile(values, [50, 90, 99])
    )
    assert np.isnan(percentiles(np.array([]))).all()


def test_scales():
    linear, log = Scale(0, 10, 100, 0), Scale(0.1, 10, 0, 100, log=True)
    assert (linear(0), linear(2.5), linear(99)) == (100, 75, 0)
    assert log(1) == pytest.approx(50) and log(0) == 0
    assert linear.ticks() == [0, 2, 4, 6, 8, 10]
    assert log.ticks() == pytest.approx([0.1, 0.2, 0.5, 1, 2, 5, 10])
    assert Scale(0.1, 1000, 0, 1, log=True).ticks() == pytest.approx([0.1, 1, 10, 100, 1000])


def test_stretches_and_borders():
    assert runs(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert runs(np.array([], bool)) == []
    assert edges_between(np.array([0.0, 1.0, 3.0])).tolist() == [-0.5, 0.5, 2.0, 4.0]
    assert edges_between(np.array([2.0])).tolist() == [1.5, 2.5]
