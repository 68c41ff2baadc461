"""What the pool depends on in gRPC, taken away: the pool works, or says what is lost."""
