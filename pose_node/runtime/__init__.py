"""First floor: one picture in, poses out. Needs a network runtime, no ROS."""
