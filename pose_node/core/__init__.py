"""Ground floor: arrays in, arrays out. Knows no ROS and no network runtime."""
