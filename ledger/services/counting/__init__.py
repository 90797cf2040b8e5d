"""How many events somebody has, as quickly for a million as for one."""
