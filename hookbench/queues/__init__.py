"""The queues: one file per way to queue tasks on a broker, behind the Protocols of ``base``."""
