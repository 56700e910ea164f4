"""How many tasks a second so many processes do: a model, fitted to one of each and checked against some more."""
