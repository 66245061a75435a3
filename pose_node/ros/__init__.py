"""Second floor: the thin ROS 2 shell. Messages become arrays here, and poses become messages."""
