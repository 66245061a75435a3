"""The ament_python package: what a robot installs (no torch, no training)."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'pose_node'


def data_files():
    """share/pose_node: launch files, configuration, bundles and the demo bag, by folder."""
    share = Path('share') / PACKAGE
    installed = [
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (str(share), ['package.xml']),
    ]
    for top in ('launch', 'config', 'bundles', 'demo'):
        for folder in sorted({path.parent for path in Path(top).rglob('*') if path.is_file()}):
            files = sorted(str(path) for path in folder.iterdir() if path.is_file())
            if folder.name != '__pycache__':
                installed.append((str(share / folder), files))
    return installed


setup(
    name=PACKAGE,
    version='0.1.0',
    description='Camera pictures in, object poses out: a ROS 2 node trained from 3D models alone',
    author='pose_node maintainers',
    maintainer='pose_node maintainers',
    maintainer_email='pose_node@users.noreply.github.com',
    license='Apache-2.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    data_files=data_files(),
    python_requires='>=3.10',
    # What ROS does not bring; package.xml names the same for rosdep.
    install_requires=[
        'setuptools',
        'numpy>=1.21,<3',
        'scipy>=1.8,<2',
        'opencv-python-headless>=4.5.4,<5',
        'onnxruntime>=1.15,<2',
        'transforms3d>=0.4,<0.5',
        'rosbags>=0.10,<0.12',
        'rich>=12,<16',
        'PyYAML>=5.4,<7',
    ],
    # TensorRT itself comes with JetPack, or from NVIDIA.
    extras_require={
        'openvino': ['openvino>=2025,<2027', 'onnx>=1.15,<2'],
        'tensorrt': ['cuda-python>=12,<14', 'onnx>=1.15,<2'],
    },
    zip_safe=True,
    entry_points={
        'console_scripts': [
            'pose_node = pose_node.ros.main:main',
            'pose = pose_node.cli:main',
        ],
    },
)
