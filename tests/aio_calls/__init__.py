"""Calls over asyncio's pools, measured by gRPC's own."""
