"""What the scripts of this folder share. Nothing here is installed."""
