"""The node as a process of its own, and a peer in this one that plays camera and listens."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from pose_node.core.camera import Camera
from pose_node.core.geometry import exp_so3, make_pose

CHECKOUT = Path(__file__).resolve().parents[1]
CAMERA = Camera(np.array([[300.0, 0.0, 159.5], [0.0, 300.0, 119.5], [0.0, 0.0, 1.0]]), (320, 240))
T_CAM_OBJ = make_pose(exp_so3(np.array([0.2, 2.4, -0.3])), np.array([0.03, -0.02, 0.5]))
FRAME = 'camera_optical_frame'


class Node:
    """A running pose_node."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open('wb') as out:
            self.process = subprocess.Popen(
                [sys.executable, '-m', 'pose_node.ros.main', '--ros-args', *arguments],
                cwd=CHECKOUT,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    def wait_for(self, text: str, timeout_s: float = 60.0) -> None:
        """Until it has said `text`."""
        end = time.monotonic() + timeout_s
        while text not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGINT) -> tuple[int, float]:
        """Exit code and the seconds it took to leave."""
        begin = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20.0), time.monotonic() - begin
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class Peer:
    """Publishes pictures and collects what comes back, by topic."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node('peer', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._publishers: dict[str, Any] = {}
        self._next_stamp_ns = 1_700_000_000_000_000_000
        self.heard: dict[str, list[Any]] = defaultdict(list)

    def close(self) -> None:
        import rclpy

        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def listen(self, kind: type, topic: str) -> None:
        """Collect the messages of a topic."""
        self.node.create_subscription(kind, topic, self.heard[topic].append, 100)

    def publisher(self, kind: type, topic: str) -> Any:
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(kind, topic, 100)
        return self._publishers[topic]

    def header(self, frame_id: str = FRAME) -> Any:
        """A header with a stamp that no other has."""
        from std_msgs.msg import Header

        header = Header(frame_id=frame_id)
        self._next_stamp_ns += 40_000_000
        header.stamp.sec, header.stamp.nanosec = divmod(self._next_stamp_ns, 1_000_000_000)
        return header

    def spin_until(self, done: Any, timeout_s: float = 20.0) -> bool:
        """Handle what comes in until done() or the time is over; returns done()."""
        end = time.monotonic() + timeout_s
        while not done() and time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)
        return bool(done())

    def spin_for(self, duration_s: float) -> None:
        self.spin_until(lambda: False, duration_s)

    def with_stamp(self, topic: str, header: Any) -> Any:
        """The message heard on `topic` with this header's stamp, or None."""
        for message in self.heard[topic]:
            if message.header.stamp == header.stamp:
                return message
        return None

    def wait_for(self, topic: str, header: Any, timeout_s: float = 5.0) -> Any:
        """The message with this header's stamp, as soon as it is here; None when it never is."""
        self.spin_until(lambda: self.with_stamp(topic, header), timeout_s)
        return self.with_stamp(topic, header)

    def call(self, kind: type, service: str, request: Any) -> Any:
        """The answer of a service."""
        client = self.node.create_client(kind, service)
        assert client.wait_for_service(20.0)
        future = client.call_async(request)
        assert self.spin_until(future.done)
        self.node.destroy_client(client)
        return future.result()


def camera_info(header: Any, camera: Camera = CAMERA, **changes: Any) -> Any:
    """The CameraInfo of a camera without distortion."""
    from sensor_msgs.msg import CameraInfo

    fields = {
        'header': header,
        'width': camera.size[0],
        'height': camera.size[1],
        'distortion_model': 'plumb_bob',
        'd': [0.0] * 5,
        'k': camera.K.ravel(),
    }
    return CameraInfo(**{**fields, **changes})
