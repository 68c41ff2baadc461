"""What the tests share: servers, fakes, pools, ways to call, and ways to wait and to count."""
