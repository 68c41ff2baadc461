"""Optional integrations. Each needs the extra of its name; no other part of the package imports them."""
