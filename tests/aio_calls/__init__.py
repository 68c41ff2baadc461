"""Calls over asyncio's pools, compared with gRPC's own."""
