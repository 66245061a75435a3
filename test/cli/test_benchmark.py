"""`pose benchmark`: everything is there, growing work costs more, and mistakes are sentences."""

from __future__ import annotations

import json
import time

import pytest

from pose_node.cli import benchmark
from pose_node.cli.machine import Energy, machine, memory_mb


def test_every_figure_is_there(pose, bundle, tmp_path, monkeypatch):
    """The known bundle is not the bag's: pictures of noise serve."""
    monkeypatch.setattr(benchmark, '_STARTS', 1)
    status, out, err = pose(
        'benchmark', bundle, '--out', tmp_path, '--regions', 1, 8, '--pictures', 3, '--repeats', 2,
        '--threads', 1,
    )  # fmt: skip
    assert (status, err) == (0, '')
    for words in ('3 pictures of noise', 'tracked: ms a picture', 'p99', 'not the networks, %',
                  'process start to first pose', 'regions in one picture', 'numpy: '):  # fmt: skip
        assert words in out
    report = json.loads((tmp_path / 'benchmark.json').read_text())
    (run,) = report['runs']
    for found in run['modes'].values():
        for low, middle, high in found['stages_ms'].values():
            assert low <= middle <= high
        assert found['pictures_per_s'] > 0.0
    assert len(run['first_pose_s']) == 1 and 0.1 < min(run['first_pose_s']) < 60.0
    assert run['memory_mb']['process'] > 30.0
    curves = run['curves']
    assert [row['keypoints'] for row in curves['keypoints']] == [8, 16, 32, 64, 128]
    assert curves['megapixels'][-1]['megapixels'] == pytest.approx(8.2944)
    one, eight = curves['regions']
    assert eight['regions'] == 8 and eight['network'] > one['network']
    page = (tmp_path / 'report.html').read_text()
    assert page.count('<svg') == 3 and 'http' not in page


def test_mistakes_are_sentences(pose, bundle, tmp_path):
    status, _, err = pose('benchmark', bundle, '--out', tmp_path, '--regions', 0)
    assert status == 2 and 'counted from 1, got 0' in err
    status, _, err = pose('benchmark', bundle, '--out', tmp_path, '--backends', 'abacus')
    assert status == 2 and "No backend is called 'abacus'" in err


def test_this_machine_is_named():
    found = machine()
    assert found['processor'] and found['numpy'] and memory_mb() > 10.0


def test_energy_of_packages_counts_on_when_the_counter_begins_anew(tmp_path):
    zone = tmp_path / 'powercap' / 'intel-rapl:0'
    zone.mkdir(parents=True)
    (zone / 'energy_uj').write_text('9000000\n')
    (zone / 'max_energy_range_uj').write_text('10000000\n')
    (tmp_path / 'powercap' / 'intel-rapl:0:0').mkdir()  # a part of the package
    energy = Energy(tmp_path)
    with energy:
        (zone / 'energy_uj').write_text('2000000\n')
    assert energy.joules == pytest.approx(3.0) and '1 packages' in energy.source


def test_energy_of_the_rails_of_a_jetson(tmp_path):
    sensor = tmp_path / 'hwmon' / 'hwmon3'
    sensor.mkdir(parents=True)
    for name, value in (('name', 'ina3221'), ('in1_input', 5000), ('curr1_input', 2000)):
        (sensor / name).write_text(f'{value}\n')
    energy = Energy(tmp_path)
    with energy:
        time.sleep(0.25)
    assert 2.4 < energy.joules < 30.0  # ten watts, and a busy machine
    assert '1 power rails' in energy.source


def test_no_energy_is_said(tmp_path):
    energy = Energy(tmp_path)
    with energy:
        pass
    assert energy.joules is None and 'reports no energy' in energy.source
