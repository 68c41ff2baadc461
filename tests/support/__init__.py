"""What the tests share: servers, fakes, a clock turned by hand, and ways to wait and to count."""
