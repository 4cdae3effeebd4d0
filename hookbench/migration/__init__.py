"""The reference producer and consumer of the guide, and the phases that route them."""
