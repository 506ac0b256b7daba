"""How near generated speech comes to the recordings that it was made from."""
