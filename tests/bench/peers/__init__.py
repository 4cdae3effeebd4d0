"""The reference worker beside other task queues, on the same brokers: ``make peers``."""
