"""Which picture is processed next: newest wins, every one in order, and pairing with boxes."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from pose_node.ros.intake import Frame, Intake


@pytest.fixture
def dropped():
    return Counter()


def make(dropped: Counter, **options) -> Intake:
    def count(reason: str, number: int) -> None:
        dropped[reason] += number

    return Intake(dropped=count, **options)


def frame(stamp_ns: int) -> Frame:
    return Frame(message=f'picture {stamp_ns}', stamp_ns=stamp_ns)


def test_newest_picture_wins(dropped):
    intake = make(dropped)
    for stamp in (1, 2, 3):
        intake.put(frame(stamp))
    assert intake.take().stamp_ns == 3
    assert intake.waiting == 0
    assert dropped == {'superseded': 2}


def test_every_picture_in_order(dropped):
    intake = make(dropped, keep_all=True, capacity=3)
    for stamp in (5, 1, 2, 9):
        intake.put(frame(stamp))
    assert [intake.take().stamp_ns for _ in range(3)] == [5, 1, 2]
    assert dropped == {'backlog': 1}


def test_take_waits_for_a_picture_and_close_ends_it(dropped):
    intake = make(dropped)
    taken: list = []

    def run() -> None:
        while (each := intake.take()) is not None:
            taken.append(each.stamp_ns)

    thread = threading.Thread(target=run)
    thread.start()
    intake.put(frame(7))
    deadline = time.monotonic() + 5.0
    while not taken and time.monotonic() < deadline:
        time.sleep(0.005)
    intake.close()
    thread.join(5.0)
    assert not thread.is_alive()
    assert taken == [7]
    assert intake.take() is None


@pytest.mark.parametrize('boxes_first', [False, True])
def test_a_picture_meets_its_boxes(dropped, boxes_first):
    intake = make(dropped, with_boxes=True)
    if boxes_first:
        intake.put_boxes(2, 'boxes 2')
    for stamp in (1, 2, 3):
        intake.put(frame(stamp))
    if not boxes_first:
        intake.put_boxes(2, 'boxes 2')
    taken = intake.take()
    assert (taken.stamp_ns, taken.message, taken.boxes) == (2, 'picture 2', 'boxes 2')
    assert dropped == {'no_boxes': 1}  # picture 1; picture 3 still waits
    assert intake.waiting == 1


def test_pictures_whose_boxes_never_come_do_not_pile_up(dropped):
    intake = make(dropped, with_boxes=True)
    for stamp in range(1000):
        intake.put(frame(stamp))
        intake.put_boxes(-stamp - 1, 'of another picture')
    assert intake.waiting <= 50
    assert dropped['no_boxes'] + intake.waiting == 1000


def test_in_order_a_picture_waits_for_its_boxes_and_then_goes_without(dropped):
    intake = make(dropped, keep_all=True, with_boxes=True, patience_s=0.2)
    intake.put(frame(1))
    intake.put(frame(2))
    intake.put_boxes(2, 'boxes 2')
    begin = time.monotonic()
    first, second = intake.take(), intake.take()
    assert 0.1 < time.monotonic() - begin < 2.0
    assert (first.stamp_ns, first.boxes) == (1, None)
    assert (second.stamp_ns, second.boxes) == (2, 'boxes 2')
    assert not dropped


def test_stamps_that_jump_back_are_no_obstacle(dropped):
    """A bag that starts again: the newest is what came last, not what is stamped last."""
    intake = make(dropped)
    intake.put(frame(100))
    intake.put(frame(1))
    assert intake.take().stamp_ns == 1
