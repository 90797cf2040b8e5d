"""Kill, cut, corrupt; then verify."""
