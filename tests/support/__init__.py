"""What several tests need: real servers to run against, and things to send to them."""
