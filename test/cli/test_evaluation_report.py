"""The report of `pose evaluate`: one whole file with the table's figures and with pictures."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from known_scenes import NUMBER, scenes, write_bop

from pose_node.cli.evaluation_report import write_evaluation
from pose_node.cli.figures import Estimate, errors_of, figures
from pose_node.core import metrics
from pose_node.core.bundle import Bundle
from pose_node.core.geometry import make_pose
from pose_node.runtime.bop import BopDataset


class Page(HTMLParser):
    """Texts, and the addresses that anything is loaded from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ('src', 'href')]

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_bop(tmp_path_factory.mktemp('bop') / 'dots_set', scenes())


def test_the_report_shows_the_figures(pose, bundle, folder, tmp_path):
    arguments = ('--bop', folder, '--boxes', 'gt', '--object-id', NUMBER)
    status, out, _ = pose('evaluate', bundle, *arguments, '--report', tmp_path / 'r.html')
    assert status == 0 and 'r.html: curves and pictures' in out
    page = Page((tmp_path / 'r.html').read_text())
    text = ' '.join(page.texts)
    assert 'dots on dots_set' in text and '100.0 %' in text
    assert page.loads and all(address.startswith('data:image/jpeg') for address in page.loads)
    # Four targets: four best pictures and two worst.
    assert len(page.loads) == 6
    shares = re.findall(r'ADD (\d+\.\d) % of d', text)
    assert [float(s) for s in shares[:4]] == sorted(float(s) for s in shares[:4])
    assert max(map(float, shares)) < 1.0


def test_nothing_found_is_a_report_too(bundle, folder, tmp_path):
    dataset, loaded = BopDataset(folder), Bundle.load(bundle)
    targets = [t for t in dataset.targets if t.object == NUMBER]
    rows = errors_of(dataset, targets, {}, {NUMBER: 'dots'})
    write_evaluation(tmp_path / 'r.html', loaded, dataset, 'none', rows, {NUMBER: 'dots'}, {})
    text = ' '.join(Page((tmp_path / 'r.html').read_text()).texts)
    assert '0.0 %' in text and 'No pose came with a covariance' in text


def test_errors_carry_nees_and_visibility(folder):
    """A shift of one sigma is a NEES of one."""
    dataset = BopDataset(folder)
    targets = [t for t in dataset.targets if t.object == NUMBER]
    shift = make_pose(np.eye(3), np.array([0.001, 0.0, 0.0]))
    covariance = np.diag([1e-6] * 6)
    estimates = {
        (t.scene, t.image): [
            Estimate(NUMBER, 0.5, shift @ truth.T_cam_obj, 0.1, covariance)
            for truth in dataset.truths(t.scene, t.image)
            if truth.object == NUMBER
        ]
        for t in targets
    }
    row = errors_of(dataset, targets, estimates, {NUMBER: 'dots'})['dots']
    np.testing.assert_allclose(row['nees'], 1.0, rtol=1e-6)
    assert set(row['visible']) <= {0.5, 0.625, 0.75}
    assert figures(row)['AUC 10 cm'] == pytest.approx(99.0)


def test_area_under_curve_by_hand():
    """Half of the poses are perfect, one misses by half the limit, one by far."""
    assert metrics.area_under_curve(np.array([0.0, 0.0, 0.05, np.inf]), 0.1) == 0.625
    errors = np.random.default_rng(1).exponential(0.05, 500)
    area = np.mean([metrics.recall(errors, t) for t in np.linspace(0.0, 0.1, 20001)])
    assert metrics.area_under_curve(errors, 0.1) == pytest.approx(area, abs=1e-4)
