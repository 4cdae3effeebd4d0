"""The capacity model: fitted from measured cells, it says what other conditions would come to."""
